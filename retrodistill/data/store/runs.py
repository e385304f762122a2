"""Runs: ranked lists of any origin, as one table of (query, document, score).

Candidates, teacher scores and search results are all runs, so mining, scoring, searching and
measuring fit each other without converters.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.files import new_file, new_folder
from retrodistill.base.manifest import Manifest
from retrodistill.data.lines import decoded, numbered_lines, write_lines
from retrodistill.data.store.columns import coded, joined
from retrodistill.data.store.form import SCORES
from retrodistill.data.store.lineage import UNKNOWN, Lineage, lineage_in
from retrodistill.data.store.run_table import COLUMNS, Scores, Strings, ranked_table
from retrodistill.data.store.shards import current_rows

FILE = "run.parquet"
SCHEMA = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float32())])
CHUNK_ROWS = 1 << 18
BLANK = r"[ \t\n\r\f\v]|^\x{FEFF}"
"""What no id of a TREC file may hold: C's isspace, which separates its columns (other spaces
are allowed), and at its start a byte order mark, which reading drops."""

Row = tuple[int, str, str, float]
"""Line number, query id, document id, score."""


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """An immutable table query_id, doc_id, score, in ranked order.

    Queries keep the order of their first row. THE tie rule, here and
    everywhere: in a query, higher scores come first, and documents of equal score, compared as
    float32, follow by id in descending order of their UTF-8 bytes. This is trec_eval's rule;
    ranks in files are ignored.

    Make one with `from_columns`, `from_dict` or `read`, which check and sort the rows.
    """

    table: pa.Table

    scale: str = "unknown"
    """What the scores are, a name of `retrodistill.base.types.SCALES`; a score store knows it."""

    origin: Path | None = None
    """Folder or file that the run was read from, or selected from."""
    lineage: Lineage = UNKNOWN
    """What the systems behind it were trained on."""

    @classmethod
    def from_columns(
        cls,
        query_ids: Strings,
        doc_ids: Strings,
        scores: Scores,
        *,
        source: str = "",
        lineage: Lineage = UNKNOWN,
    ) -> "Run":
        """Return the run of these rows, in any order; `source` is named in errors.

        Raises:
            DataError: unequal lengths, an empty id, a pair given twice, NaN or infinity.

        """
        prefix = f"{source}: row " if source else "row "
        columns = (query_ids, doc_ids, scores)
        table = ranked_table(*columns, where=lambda row: f"{prefix}{row + 1}")
        return cls(table, lineage=lineage)

    @classmethod
    def from_dict(
        cls,
        scores: Mapping[str, Mapping[str, float]],
        *,
        source: str = "",
        lineage: Lineage = UNKNOWN,
    ) -> "Run":
        """Return the run of query id -> document id -> score; queries without any are absent."""
        query_ids = [query for query, docs in scores.items() for _ in docs]
        doc_ids = [doc for docs in scores.values() for doc in docs]
        values = [score for docs in scores.values() for score in docs.values()]
        return cls.from_columns(query_ids, doc_ids, values, source=source, lineage=lineage)

    @classmethod
    def from_lists(
        cls,
        lists: Iterable[tuple[str, Sequence[str], NDArray[np.float32]]],
        *,
        source: str = "",
        lineage: Lineage = UNKNOWN,
    ) -> "Run":
        """Return the run of (query id, document ids, scores), as `lists` yields them.

        Only a chunk of the rows is held as Python objects, which take ten times the memory.
        """
        rows = (
            (0, query, doc, score)
            for query, docs, scores in lists
            for doc, score in zip(docs, scores.tolist(), strict=True)
        )
        return cls.from_columns(*_gathered(rows), source=source, lineage=lineage)

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run folder, a score store, or a TREC, `.jsonl` or `.parquet` file.

        Text may be gzipped (`.gz`). A TREC line is `query Q0 document rank score tag`, a JSONL
        line an object with query_id, doc_id and score.

        Raises:
            DataError: a file is absent, malformed, or changed since its manifest was written.

        """
        path = Path(path)
        if path.is_dir():
            return replace(cls._read_folder(path), origin=path)
        if not path.exists():
            raise DataError(
                f"there is no run at {path}. Give a run folder, a score store, "
                "or a TREC, JSONL or Parquet file."
            )
        foreign = Lineage(unrecorded=(path.name,))
        suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
        if suffix == ".parquet":
            run = cls._of_table(_read_parquet(path), source=str(path), lineage=foreign)
            return replace(run, origin=path)
        rows = _jsonl_rows if suffix == ".jsonl" else _trec_rows

        def where(row: int) -> str:
            return f"{path}:{next(islice(rows(path), row, None))[0]}"

        table = ranked_table(*_gathered(rows(path)), where=where)
        return cls(table, origin=path, lineage=foreign)

    @classmethod
    def _read_folder(cls, folder: Path) -> "Run":
        manifest = Manifest.read(folder)
        lineage = lineage_in(folder, manifest)
        if manifest.kind == "run":
            file = folder / FILE
            run = cls._of_table(_read_parquet(file), source=str(file), lineage=lineage)
            if run.fingerprint != manifest.fingerprint:
                raise DataError(
                    f"{folder / FILE} does not match its manifest.json "
                    f"(fingerprint {run.fingerprint[:12]}, wanted {manifest.fingerprint[:12]}). "
                    "Recreate the run."
                )
            return run
        if manifest.kind == "scores":
            lists = manifest.details.get("unit") == "list"
            rows = current_rows(folder, SCORES, lists=lists)
            run = cls._of_table(rows, source=str(folder), lineage=lineage)
            return replace(run, scale=str(manifest.details.get("scale", run.scale)))
        raise DataError(
            f"{folder} is of kind {manifest.kind!r}, but must be a run or a score store."
        )

    @classmethod
    def _of_table(cls, table: pa.Table, *, source: str, lineage: Lineage) -> "Run":
        columns = (table[name] for name in COLUMNS)
        return cls.from_columns(*columns, source=source, lineage=lineage)

    def write(
        self,
        out: Path,
        *,
        inputs: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write a run folder, whole or not at all, with its manifest and its lineage.

        Raises:
            ConfigError: `out` exists already and `overwrite` is not set.

        """
        counts = {"queries": len(self.query_ids), "rows": len(self)}
        with new_folder(out, overwrite=overwrite) as folder:
            pq.write_table(self.table, folder / FILE)
            Manifest(
                kind="run",
                fingerprint=self.fingerprint,
                inputs=inputs or {},
                config=config or {},
                details={**counts, **(details or {}), **self.lineage.write(folder)},
            ).write(folder)

    def to_trec(self, path: Path, tag: str = "retrodistill") -> None:
        """Write a TREC file; nine digits keep each float32 score exactly.

        Raises:
            DataError: an id or the tag holds a blank, which would shift the columns.

        """
        for name in COLUMNS[:2]:
            bad = pc.index(pc.match_substring_regex(self.table[name], BLANK), True).as_py()
            if bad >= 0:
                raise DataError(
                    f"{name} {self.table[name][bad].as_py()!r} holds a blank, which a TREC file "
                    "cannot. Write Parquet or JSONL instead."
                )
        if not tag or len(tag.split()) != 1:
            raise DataError(f"the tag of a TREC file must be one word, but it is {tag!r}.")
        write_lines(
            path,
            (
                f"{query} Q0 {doc} {rank} {score:.9g} {tag}"
                for query, docs, scores in self.lists()
                for rank, (doc, score) in enumerate(zip(docs, scores.tolist(), strict=True), 1)
            ),
        )

    def to_jsonl(self, path: Path) -> None:
        """Write one JSON object a row; nine digits keep each float32 score exactly."""
        write_lines(
            path,
            (
                f'{{"query_id": {key}, "doc_id": {json.dumps(doc, ensure_ascii=False)}, '
                f'"score": {score:.9g}}}'
                for query, docs, scores in self.lists()
                for key in (json.dumps(query, ensure_ascii=False),)
                for doc, score in zip(docs, scores.tolist(), strict=True)
            ),
        )

    def to_parquet(self, path: Path) -> None:
        """Write the table as one Parquet file, whole or not at all."""
        with new_file(path) as aside:
            pq.write_table(self.table, aside)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return query id -> document id -> score, in ranked order: 100 bytes a pair.

        `lists` and `list_of` give a query at a time.
        """
        return {q: dict(zip(docs, s.tolist(), strict=True)) for q, docs, s in self.lists()}

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        """Name the size and the content."""
        return f"Run({len(self.query_ids)} queries, {len(self)} rows, {self.fingerprint[:12]})"

    @cached_property
    def _queries(self) -> tuple[list[str], NDArray[np.int64]]:
        """Distinct query ids, and where each one's rows start, then the number of rows."""
        codes = coded(self.table["query_id"])
        steps = np.diff(codes.indices.to_numpy(), prepend=-1)
        return codes.dictionary.to_pylist(), np.append(np.flatnonzero(steps), len(self))

    @property
    def query_ids(self) -> list[str]:
        """Queries that have at least one document, in order."""
        return list(self._queries[0])

    @property
    def list_sizes(self) -> NDArray[np.int64]:
        """Return how many documents each query has, in the order of `query_ids`."""
        return np.diff(self._queries[1])

    def lists(self) -> Iterator[tuple[str, list[str], NDArray[np.float32]]]:
        """Yield (query id, its document ids, their scores), best first."""
        for position, query in enumerate(self._queries[0]):
            yield query, *self._list(position)

    def list_of(self, query_id: str) -> tuple[list[str], NDArray[np.float32]]:
        """Return a query's document ids and their scores, best first; none if it is absent."""
        position = self._positions.get(query_id)
        return ([], np.empty(0, np.float32)) if position is None else self._list(position)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {query: position for position, query in enumerate(self._queries[0])}

    @cached_property
    def _docs_and_scores(self) -> tuple[pa.Array, NDArray[np.float32]]:
        return joined(self.table["doc_id"]), self.table["score"].to_numpy()

    def _list(self, position: int) -> tuple[list[str], NDArray[np.float32]]:
        doc_ids, scores = self._docs_and_scores
        start, end = self._queries[1][position : position + 2].tolist()
        docs = doc_ids.slice(start, end - start).to_numpy(zero_copy_only=False)
        return docs.tolist(), scores[start:end]

    def top(self, k: int) -> "Run":
        """Return the run of each query's `k` best documents."""
        starts, lengths = self._queries[1][:-1], self.list_sizes
        ranks = np.arange(len(self)) - np.repeat(starts, lengths)
        return replace(self, table=self.table.filter(pa.array(ranks < k)))

    def select(self, query_ids: Iterable[str]) -> "Run":
        """Return the run of these queries only, in this run's order; absent ones stay absent."""
        selected = pa.array(list(query_ids), self.table["query_id"].type)
        table = self.table.filter(pc.is_in(self.table["query_id"], value_set=selected))
        return replace(self, table=table)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content: the rows in ranked order, however they are stored."""
        hasher = hashlib.sha256(b"run 1\0")
        for name in COLUMNS[:2]:
            hasher.update(pc.binary_length(self.table[name]).to_numpy().astype("<i4"))
            for characters in _characters(self.table[name]):
                hasher.update(characters)
        hasher.update(self.table["score"].to_numpy().astype("<f4"))
        return hasher.hexdigest()


def _characters(column: pa.ChunkedArray) -> Iterator[memoryview]:
    """Yield the bytes of a string column, without what surrounds a slice."""
    width = np.int64 if pa.types.is_large_string(column.type) else np.int32
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        bounds = np.frombuffer(offsets, width)[chunk.offset : chunk.offset + len(chunk) + 1]
        if len(chunk):
            yield memoryview(data)[bounds[0] : bounds[-1]]


def _read_parquet(path: Path) -> pa.Table:
    """Return the three columns of a Parquet file."""
    try:
        names = pq.read_schema(path).names
        absent = [name for name in COLUMNS if name not in names]
        if absent:
            raise DataError(
                f"{path} has no column {', '.join(absent)}; it has {', '.join(names)}. "
                f"A run needs {', '.join(COLUMNS)}."
            )
        return pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Recreate it.") from error


def _trec_rows(path: Path) -> Iterator[Row]:
    for number, line in numbered_lines(path):
        parts = line.split()
        if len(parts) != 6:
            hint = (
                " Three columns are triples: see retrodistill.data.store.triples."
                if len(parts) == 3
                else ""
            )
            raise DataError(
                f"{path}:{number}: a TREC line is `query Q0 document rank score tag`, 6 columns, "
                f"but this one has {len(parts)}: {line[:80]!r}.{hint}"
            )
        try:
            score = float(parts[4])
        except ValueError:
            raise DataError(
                f"{path}:{number}: the score (column 5) must be a number, not {parts[4]!r}."
            ) from None
        query, doc = decoded(f"{path}:{number}", parts[0], parts[2])
        yield number, query, doc, score


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
            query, doc, score = (row[name] for name in COLUMNS)
            f"{query}{doc}".encode()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: a line must be a JSON object with {', '.join(COLUMNS)}, but "
                f"{type(error).__name__}: {error} in {line[:80]!r}."
            ) from error
        for name, value in (("query_id", query), ("doc_id", doc)):
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise DataError(f"{path}:{number}: {name} must be a string, not {value!r}.")
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise DataError(f"{path}:{number}: score must be a number, not {score!r}.")
        yield number, str(query), str(doc), _as_float(score)


def _as_float(number: float) -> float:
    """Return a number as a float, which is infinite where it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return float("inf")


def _gathered(
    rows: Iterator[Row],
) -> tuple[pa.ChunkedArray, pa.ChunkedArray, NDArray[np.float32]]:
    """Return rows as columns; only a chunk of them is held as Python objects."""
    queries: list[pa.Array] = []
    docs: list[pa.Array] = []
    scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    while chunk := list(islice(rows, CHUNK_ROWS)):
        queries.append(pa.array([row[1] for row in chunk], pa.string()))
        docs.append(pa.array([row[2] for row in chunk], pa.string()))
        with np.errstate(over="ignore"):
            scores.append(np.array([row[3] for row in chunk], np.float32))
    ids = (pa.chunked_array(column, pa.string()) for column in (queries, docs))
    return *ids, np.concatenate(scores)
