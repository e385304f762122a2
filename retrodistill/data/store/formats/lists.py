"""The lists of a run, as written to files: with the known relevant documents first."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.data.store.formats.records import Relevant, ScoreRecord
from retrodistill.data.store.runs import Run

LINE_BREAKERS = r"[\t\r\n]|^\x{FEFF}"
"""What no id of a line of tab-separated columns may hold."""


def short(scores: NDArray[np.float32]) -> list[float]:
    """Return scores as numbers of at most nine digits, which preserve each float32 exactly."""
    return [float(f"{score:.9g}") for score in scores.tolist()]


def ranked(run: Run) -> Iterator[ScoreRecord]:
    """Yield each query with its documents, best first."""
    for number, (query, docs, scores) in enumerate(run.lists(), 1):
        yield ScoreRecord(number, query, docs, short(scores))


def split(run: Run, relevant: Relevant | None) -> Iterator[ScoreRecord]:
    """Yield each query that has a relevant document and another: the relevant ones, the others.

    Raises:
        ConfigError: `relevant` is missing.

    """
    if relevant is None:
        raise ConfigError(
            "this format distinguishes relevant documents: give the collection and the split, or"
            " `relevant`."
        )
    for number, query, docs, scores, _ in ranked(run):
        relevant_ids = set(relevant.get(query, ()))
        positives = [i for i, doc in enumerate(docs) if doc in relevant_ids]
        if 0 < len(positives) < len(docs):
            order = [*positives, *(i for i, doc in enumerate(docs) if doc not in relevant_ids)]
            yield ScoreRecord(
                number, query, [docs[i] for i in order], [scores[i] for i in order], len(positives)
            )


def labelled(run: Run, relevant: Relevant | None) -> Iterator[ScoreRecord]:
    """Yield what `split` yields, and log how many queries it skips.

    Raises:
        ConfigError: `relevant` is missing.
        DataError: no query is left.

    """
    written = 0
    for record in split(run, relevant):
        written += 1
        yield record
    total = len(run.query_ids)
    if not written:
        raise DataError(
            f"none of the {total:,} queries has both a scored relevant document and another. Are "
            "the relevant documents those of these queries?"
        )
    if written < total:
        log.info(
            f"{total - written:,} of {total:,} queries are skipped: they have no scored relevant "
            "document, or no other."
        )


def check_columns(run: Run, path: Path) -> None:
    """Raise DataError if an id would break a line of tab-separated columns."""
    for name in ("query_id", "doc_id"):
        column = run.table[name]
        bad = pc.index(pc.match_substring_regex(column, LINE_BREAKERS), True).as_py()
        if bad >= 0:
            raise DataError(
                f"{name} {column[bad].as_py()!r} holds a tab, a line break or a byte order mark, "
                f"which the columns of {path} cannot. Write JSONL or Parquet instead."
            )
