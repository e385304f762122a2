"""Records become a run: checked, each pair once, with only a chunk of them as Python objects."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.data.store.columns import codes, widened
from retrodistill.data.store.formats.records import (
    Imported,
    OnConflict,
    Records,
    Relevant,
    ScoreRecord,
    Tables,
    Writer,
    place,
)
from retrodistill.data.store.formats.texts import TextCollection, TextIds
from retrodistill.data.store.runs import Run

CHUNK_ROWS = 1 << 17
"""Rows that are Python objects at a time."""

Lookup = tuple[TextIds, TextIds]
"""Finds the ids of queries and of documents."""


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """A format that is read record by record."""

    records: Records
    writer: Writer
    texts: bool = False
    tables: Tables | None = None

    def read(
        self, path: Path, collection: TextCollection | None, on_conflict: OnConflict
    ) -> Imported:
        """Return a file's scores, and what it calls relevant.

        Raises:
            ConfigError: it holds texts, and there is no collection.
            DataError: an id is empty, a score not a finite number, a text unknown, a pair has
                several scores (unless their mean is requested), or there is no record.

        """
        lookup = _lookup(path, collection) if self.texts else None
        table = _once(
            self._rows(path, lookup),
            where=lambda row: self._where(path, row),
            on_conflict=on_conflict,
        )
        for ids in lookup or ():
            if ids.shared:
                log.info(
                    f"{len(ids.shared):,} texts of {path} belong to several of {ids.name}: the "
                    "first of each was taken."
                )
        run = Run.from_columns(table["query_id"], table["doc_id"], table["score"], source=str(path))
        return Imported(run, _positives(table))

    def write(
        self, path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
    ) -> None:
        """Write a run's scores, whole or not at all."""
        self.writer(path, run, relevant, collection)

    def _rows(self, path: Path, lookup: Lookup | None) -> pa.Table:
        """Return all rows as checked columns."""
        if self.tables:
            try:
                return pa.concat_tables([_checked(table) for table in self.tables(path)])
            except (OSError, pa.ArrowException):
                pass  # the records, read one by one, say what is wrong and where
        tables = [_columns(path, chunk, lookup) for chunk in _chunks(self.records(path))]
        if not tables:
            raise DataError(f"{path} holds no scores. Is it the right file?")
        return pa.concat_tables(tables)

    def _where(self, path: Path, row: int) -> str:
        """Return the place of a row; the file is read again."""
        for record in self.records(path):
            row -= len(record.docs)
            if row < 0:
                return place(path, record.number)
        raise AssertionError(row)


def _lookup(path: Path, collection: TextCollection | None) -> Lookup:
    if collection is None:
        raise ConfigError(
            f"{path} holds texts, not ids: a collection is needed to find their ids. Give the one "
            "that they come from."
        )
    return TextIds(collection.queries), TextIds(collection.docs)


def _positives(table: pa.Table) -> dict[str, list[str]]:
    """Return query id -> ids of its relevant documents."""
    relevant = table.filter(table["relevant"])
    columns = (relevant[name].to_pylist() for name in ("query_id", "doc_id"))
    positives: dict[str, list[str]] = {}
    for query, doc in zip(*columns, strict=True):
        positives.setdefault(query, []).append(doc)
    return positives


def _chunks(records: Iterator[ScoreRecord]) -> Iterator[list[ScoreRecord]]:
    chunk: list[ScoreRecord] = []
    rows = 0
    for record in records:
        chunk.append(record)
        rows += len(record.docs)
        if rows >= CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
    if rows:
        yield chunk


def _checked(table: pa.Table) -> pa.Table:
    """Return a table with scores in float32, or raise `ArrowInvalid` if it is malformed."""
    scores = _float32(table["score"].to_numpy())
    empty = any(pc.any(pc.equal(table[name], "")).as_py() for name in ("query_id", "doc_id"))
    if scores is None or empty:
        raise pa.ArrowInvalid("an id is empty, or a score is not finite")
    return table.set_column(table.schema.get_field_index("score"), "score", pa.array(scores))


def _columns(path: Path, chunk: Sequence[ScoreRecord], lookup: Lookup | None) -> pa.Table:
    """Return records as the columns query_id, doc_id, score and relevant."""
    sizes = np.array([len(record.docs) for record in chunk])
    queries = _ids([record.query for record in chunk], lookup)
    docs = _ids(list(chain.from_iterable(record.docs for record in chunk)), lookup)
    scores = _floats(list(chain.from_iterable(record.scores for record in chunk)))
    uneven = [len(record.scores) for record in chunk] != sizes.tolist()
    if queries is None or docs is None or scores is None or uneven:
        _complain(path, chunk, lookup)
    owners = np.repeat(np.arange(len(chunk)), sizes)
    if lookup:
        queries = lookup[0].find(queries, lambda i: place(path, chunk[i].number))
        docs = lookup[1].find(docs, lambda i: place(path, chunk[owners[i]].number))
    starts = np.cumsum(sizes) - sizes
    relevant = np.array([record.relevant for record in chunk])
    columns = {
        "query_id": pa.array(queries, pa.string()).take(owners),
        "doc_id": pa.array(docs, pa.string()),
        "score": scores,
        "relevant": np.arange(len(owners)) - starts[owners] < relevant[owners],
    }
    return pa.table(columns)


def _floats(scores: list[Any]) -> NDArray[np.float32] | None:
    """Return numbers as float32, or None if one is not a number or not finite."""
    if not set(map(type, scores)) <= {int, float}:
        return None
    try:
        return _float32(np.array(scores, np.float64))
    except OverflowError:
        return None


def _float32(scores: NDArray[np.float64]) -> NDArray[np.float32] | None:
    with np.errstate(over="ignore"):
        values = scores.astype(np.float32)
    return values if np.isfinite(values).all() else None


def _ids(values: list[Any], lookup: object) -> list[str] | None:
    """Return ids (strings that are not empty, whole numbers) as strings; None if one is neither.

    Where texts are looked up, any string is valid.
    """
    kinds = set(map(type, values))
    if lookup:
        return values if kinds <= {str} else None
    if not kinds <= {str, int} or "" in values:
        return None
    ids = list(map(str, values)) if int in kinds else values
    try:
        "".join(ids).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return ids


def _complain(path: Path, chunk: Sequence[ScoreRecord], lookup: object) -> NoReturn:
    """Raise DataError for the first malformed record."""
    for record in chunk:
        at = place(path, record.number)
        if len(record.docs) != len(record.scores):
            raise DataError(
                f"{at}: {len(record.docs)} documents have {len(record.scores)} scores. Each "
                "document needs one."
            )
        for side, value in (("query", record.query), *(("document", doc) for doc in record.docs)):
            if _ids([value], lookup) is None:
                noun, kind = ("text", "string") if lookup else ("id", "string that is not empty")
                raise DataError(
                    f"{at}: the {noun} of a {side} must be a {kind}, not {value!r:.80}."
                )
        for doc, score in zip(record.docs, record.scores, strict=True):
            if _floats([score]) is None:
                raise DataError(
                    f"{at}: the score of query {record.query!r:.60} and document {doc!r:.60} must "
                    f"be a finite number of float32, not {score!r:.60}."
                )
    raise AssertionError(path)


def _once(table: pa.Table, *, where: Callable[[int], str], on_conflict: OnConflict) -> pa.Table:
    """Return one row for each pair, in order of first appearance; it is relevant if any was."""
    order, starts = _grouped(table)
    if len(starts) == len(table):
        return table
    # The first row of each pair, and the pairs in order of first appearance.
    firsts = order[starts]
    back = np.argsort(firsts)
    # Where a pair's score differs from the one before.
    scores = table["score"].to_numpy()[order]
    changed = scores != np.roll(scores, 1)
    changed[starts] = False
    merged = scores[starts]
    if changed.any():
        if on_conflict == "refuse":
            later = np.flatnonzero(changed)[np.argmin(order[changed])]
            earlier = firsts[np.searchsorted(starts, later, side="right") - 1]
            _refuse(table, int(earlier), int(order[later]), where)
        # The mean over the rows of each pair.
        sums = np.add.reduceat(scores.astype(np.float64), starts)
        merged = (sums / np.diff(starts, append=len(table))).astype(np.float32)
        log.info(
            f"{np.logical_or.reduceat(changed, starts).sum():,} pairs have several scores that "
            "differ: each got their mean."
        )
    relevant = np.logical_or.reduceat(table["relevant"].to_numpy()[order], starts)
    return pa.table(
        {
            "query_id": widened(table["query_id"]).take(firsts[back]),
            "doc_id": widened(table["doc_id"]).take(firsts[back]),
            "score": merged[back],
            "relevant": relevant[back],
        }
    )


def _grouped(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return an order that puts rows of the same pair together, and where each pair starts in it.

    Rows of the same pair keep their order.
    """
    keys, docs = (codes(table[name]) for name in ("query_id", "doc_id"))
    keys *= int(docs.max()) + 1
    keys += docs
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    return order, np.append(0, 1 + np.flatnonzero(keys[1:] != keys[:-1]))


def _refuse(table: pa.Table, earlier: int, later: int, where: Callable[[int], str]) -> NoReturn:
    query, doc, score = (table[name][later].as_py() for name in ("query_id", "doc_id", "score"))
    raise DataError(
        f"{where(later)}: query {query!r} gives document {doc!r} score {score:.9g}, but "
        f"{table['score'][earlier].as_py():.9g} before ({where(earlier)}). Keep one of the two, or "
        "ask for the mean of conflicting scores."
    )
