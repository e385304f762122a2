"""Memory-mapped tables of texts on disk: id, title and text, in corpus order.

Two files: `STEM.arrow`, the rows in record batches, and `STEM.ids.npy`, a (2, n) array of the
ids' sorted 64-bit hashes and of their rows. An id is found by bisection in the second file and
verified in the first, so neither ids nor texts are held in Python's memory.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.manifest import hash64
from retrodistill.base.types import Doc
from retrodistill.data.datasets.attributes import REMEDY, Fields, cached_attributes

SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
TEXT_COLUMNS = ("title", "text")
BATCH_ROWS = 16_384
BATCH_CHARACTERS = 32_000_000
SLICE_ROWS = 1024
PORTION_ROWS, PORTION_BYTES = 65_536, 64_000_000
"""Texts of a portion, and their bytes: what is in memory while all texts are gone through."""

RowNumbers = Sequence[int] | NDArray[np.int64]
Hasher = Callable[[Sequence[str]], NDArray[np.uint64]]


@dataclass(frozen=True, slots=True)
class TextSource:
    """Functions that read texts from their source; each may be called several times."""

    read: Callable[[], Iterable[Doc]]
    """Returns the texts in order."""

    locate: Callable[[int], str]
    """Returns the location of a row for messages, such as `corpus.jsonl:17`. It may be slow."""

    fields: Callable[[], Iterable[Fields]] | None = None
    """Returns the id and the further fields of each text in order."""


def no_texts() -> TextSource:
    """Return the source of an empty table."""
    return TextSource(lambda: (), str)


class Texts:
    """The documents or the queries of a collection: a sequence of `Doc`, with look-up by id.

    `name` is used in messages. `fingerprint` is the hash of the content. Attributes are read from
    `source`; `persistent` files outlive this process, so attributes are cached beside them.
    """

    def __init__(
        self,
        stem: Path,
        *,
        name: str,
        fingerprint: str,
        hasher: Hasher = hash64,
        source: TextSource | None = None,
        persistent: bool = False,
    ) -> None:
        self.name = name
        self.source = source
        self._beside = stem if persistent else None
        self.fingerprint = fingerprint
        self._hasher = hasher
        self._map(stem)

    def _map(self, stem: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(arrow_file(stem))))
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        sizes = [batch.num_rows for batch in self._batches]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        index = np.asarray(np.load(ids_file(stem), mmap_mode="r"))
        if index.shape != (2, len(self)):
            raise DataError(f"{ids_file(stem)} does not belong to {arrow_file(stem)}.")
        self._hashes, self._rows = index

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the files' name, or the whole content if the files are not persistent.

        The source is not pickled: the other process cannot read attributes.
        """
        state = {**self.__dict__, "source": None}
        if self._beside is not None:
            state["_beside"] = self._beside.absolute()
            for mapped in ("_batches", "_starts", "_hashes", "_rows"):
                del state[mapped]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._beside is not None:
            self._map(self._beside)

    def __repr__(self) -> str:
        return f"Texts({self.name!r}, {len(self)} rows)"

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Doc]:
        for batch in self._batches:
            for start in range(0, batch.num_rows, SLICE_ROWS):
                rows = batch.slice(start, SLICE_ROWS)
                yield from map(Doc, *(column.to_pylist() for column in rows.columns))

    def __getitem__(self, row: int) -> Doc:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        offset = int(row - self._starts[number])
        return Doc(*(column[offset].as_py() for column in self._batches[number].columns))

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and bool(self.find([id])[0] >= 0)

    def get(self, id: str) -> Doc:
        """Return the text with an id.

        Raises:
            DataError: the id is unknown.

        """
        return self[int(self.rows([id])[0])]

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row number of each id.

        Raises:
            DataError: an id is not in the collection; the message names the first one.

        """
        rows = self.find(ids)
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            more = f", nor {len(absent) - 1} other requested ids" if len(absent) > 1 else ""
            raise DataError(
                f"{self.name} ({len(self)} in all) hold no id {ids[absent[0]]!r}{more}. "
                "Was the run, score store or judgement file made from another collection, or with "
                "--queries FILE? Then use the same here."
            )
        return rows

    def distinct(self, ids: "pa.ChunkedArray") -> tuple[list[Doc], NDArray[np.int64]]:
        """Return the distinct texts of a column of ids, and each row's index into them.

        Raises:
            DataError: an id is not in the collection; the message names the first one.

        """
        codes = ids.dictionary_encode().combine_chunks()  # joined, ids may exceed 2 GB
        names = codes.dictionary.to_pylist()
        return self.take(self.rows(names)), codes.indices.to_numpy().astype(np.int64)

    def take(self, rows: RowNumbers) -> list[Doc]:
        """Return the texts of these rows, in their order."""
        return list(map(Doc, *self._columns(rows, "id", "title", "text")))

    def same_ids(self, other: "Texts") -> bool:
        """Tell whether both have the same ids in the same rows."""
        return np.array_equal(self._hashes, other._hashes) and np.array_equal(
            self._rows, other._rows
        )

    def ids(self, rows: RowNumbers | None = None) -> list[str]:
        """Return the ids of these rows, or of all rows."""
        return self._columns(rows, "id")[0]

    def full_texts(self, rows: RowNumbers | None = None) -> list[str]:
        """Return title and text, joined by a space, of these rows, or of all rows."""
        titles, texts = self._columns(rows, "title", "text")
        return [Doc("", title, text).full_text for title, text in zip(titles, texts, strict=True)]

    def portions(self, rows: NDArray[np.int64]) -> Iterator[slice]:
        """Yield stretches of these rows, none with more texts than memory should hold at once."""
        if not len(rows):
            return
        sizes = [
            sum(pc.binary_length(batch[name]).to_numpy().astype(np.int64) for name in TEXT_COLUMNS)
            for batch in self._batches
        ]
        ends = np.cumsum(np.concatenate(sizes)[rows])
        start, before = 0, 0
        while start < len(rows):
            full = int(np.searchsorted(ends, before + PORTION_BYTES, side="right"))
            end = max(start + 1, min(full, start + PORTION_ROWS))
            yield slice(start, end)
            start, before = end, int(ends[end - 1])

    def attributes(self, names: Sequence[str] | None = None) -> pa.Table:
        """Return attributes, the texts' further fields, as typed columns with one row a text.

        `names` are the requested fields. None requests all that can be columns; those that cannot,
        as their values are of several types, are logged. A text without a field has null there.
        The source is read a second time, and the columns are cached beside the texts.

        Raises:
            DataError: the texts have no further fields, a requested field does not exist or cannot
                be a column, or the source was changed after the texts were read.

        """
        if self.source is None or self.source.fields is None:
            raise DataError(f"{self.name} have no further fields. {REMEDY}")
        ids = pa.chunked_array([batch["id"] for batch in self._batches], pa.string())
        return cached_attributes(
            self._beside, self.name, ids, self.source.fields, self.source.locate, names
        )

    def _columns(self, rows: RowNumbers | None, *names: str) -> list[list[str]]:
        """Return columns of the requested rows, in their order, reading each batch once."""
        if rows is None:
            return [
                [value for batch in self._batches for value in batch[name].to_pylist()]
                for name in names
            ]
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        # Distinct rows in ascending order; `cuts` are the bounds of each batch within them.
        distinct, positions = np.unique(rows, return_inverse=True)
        cuts = np.searchsorted(distinct, self._starts)
        columns = [np.empty(len(distinct), object) for _ in names]
        for number in np.flatnonzero(np.diff(cuts)).tolist():  # one batch at a time
            span = slice(cuts[number], cuts[number + 1])
            taken = pa.array(distinct[span] - self._starts[number])
            for column, name in zip(columns, names, strict=True):
                texts = self._batches[number][name].take(taken)
                column[span] = texts.to_numpy(zero_copy_only=False)
        # Back to the requested order, repeated rows included.
        return [column[positions].tolist() for column in columns]

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each id, or -1."""
        rows = np.full(len(ids), -1, dtype=np.int64)
        hashes = self._hasher(ids)
        position = np.searchsorted(self._hashes, hashes)
        pending = np.arange(len(ids))
        # Compare each id with the rows of its hash, one after the other where hashes collide.
        while True:
            pending = pending[position[pending] < len(self._hashes)]
            pending = pending[self._hashes[position[pending]] == hashes[pending]]
            if not len(pending):
                return rows
            candidates = self._rows[position[pending]].astype(np.int64)
            candidate_ids = self.ids(candidates)
            match = np.array([ids[i] == id for i, id in zip(pending, candidate_ids, strict=True)])
            rows[pending[match]] = candidates[match]
            pending = pending[~match]
            position[pending] += 1


def spread_rows(total: int, count: int) -> NDArray[np.int64]:
    """Return `count` row numbers, evenly spaced from the first to the last of `total` rows.

    Returns all rows if there are fewer.
    """
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))


def arrow_file(stem: Path) -> Path:
    """Return the path of the file with the rows."""
    return stem.with_name(stem.name + ".arrow")


def ids_file(stem: Path) -> Path:
    """Return the path of the file with the sorted hashes of the ids, and their rows."""
    return stem.with_name(stem.name + ".ids.npy")


def write_texts(stem: Path, source: TextSource, *, hasher: Hasher = hash64) -> str:
    """Write the two files of a `Texts`, and return the fingerprint of the content.

    Memory holds a batch of texts, and about 40 bytes a row.

    Raises:
        DataError: an id occurs twice, or a text holds half of a surrogate pair.

    """
    # Write the rows by batches, and hash contents and ids.
    content = hashlib.sha256()
    hashes = array("Q")
    with pa.OSFile(str(arrow_file(stem)), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for batch in _batches(source.read()):
            for row, doc in enumerate(batch, start=len(hashes)):
                try:
                    content.update(_record(doc))
                except UnicodeEncodeError as error:
                    raise DataError(
                        f"{source.locate(row)}: the text holds half of a surrogate pair "
                        f"({error}), which UTF-8 cannot write. Remove it."
                    ) from None
            hashes.frombytes(hasher([doc.id for doc in batch]).tobytes())
            columns = [[doc.id for doc in batch], [doc.title for doc in batch]]
            columns.append([doc.text for doc in batch])
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    # Write the index: hashes in ascending order, and their rows.
    unsorted = np.frombuffer(hashes, dtype=np.uint64)
    order = np.argsort(unsorted, kind="stable")
    index = np.stack([unsorted[order], order.astype(np.uint64)])
    np.save(ids_file(stem), index)
    # Equal hashes are duplicate ids, or rare collisions: compare the ids themselves.
    fingerprint = content.hexdigest()
    alike = np.flatnonzero(index[0, 1:] == index[0, :-1])
    if len(alike):
        suspects = np.unique(np.concatenate([order[alike], order[alike + 1]]))
        texts = Texts(stem, name="texts", fingerprint=fingerprint, hasher=hasher)
        _refuse_duplicates(suspects.tolist(), texts.ids(suspects), source.locate)
    return fingerprint


def _batches(docs: Iterable[Doc]) -> Iterator[list[Doc]]:
    batch: list[Doc] = []
    characters = 0
    for doc in docs:
        batch.append(doc)
        characters += len(doc.title) + len(doc.text)
        if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _record(doc: Doc) -> bytes:
    """Return a text's bytes for the fingerprint; the lengths mark the boundaries."""
    lengths = f"{len(doc.id)} {len(doc.title)} {len(doc.text)}\n"
    return f"{lengths}{doc.id}{doc.title}{doc.text}".encode()


def _refuse_duplicates(rows: list[int], ids: list[str], locate: Callable[[int], str]) -> None:
    seen: dict[str, int] = {}
    for row, id in zip(rows, ids, strict=True):
        if id in seen:
            raise DataError(
                f"{locate(row)}: duplicate id {id!r}, already at {locate(seen[id])}. "
                "Ids must be unique: remove or rename one."
            )
        seen[id] = row
