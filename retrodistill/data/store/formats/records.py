"""What score files hold, and what a format is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import pyarrow as pa

from retrodistill.data.store.formats.texts import TextCollection
from retrodistill.data.store.runs import Run

OnConflict = Literal["refuse", "mean"]
"""What to do with a pair that a file gives different scores."""

Relevant = Mapping[str, Sequence[str]]
"""Query id -> ids of its relevant documents."""


class ScoreRecord(NamedTuple):
    """A query with some of its documents: what a line or row of a file holds."""

    number: int
    """Number of the line or row, from 1."""

    query: str
    docs: Sequence[str]
    scores: Sequence[float]
    relevant: int = 0
    """The first N documents are known to be relevant."""


Records = Callable[[Path], Iterator[ScoreRecord]]

Tables = Callable[[Path], Iterator[pa.Table]]
"""Gives the same rows as columns query_id, doc_id, score (float64) and relevant, several times as
fast; malformed rows raise an `ArrowException`, or are left for the checks to find."""

Writer = Callable[[Path, Run, "Relevant | None", TextCollection | None], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """The content of a score file."""

    run: Run
    positives: dict[str, list[str]]
    """Query id -> documents that the file calls relevant; empty if its format never does."""


class Format(Protocol):
    """A format of score files."""

    texts: bool
    """Whether it holds texts in place of ids, so that reading needs a collection."""

    def read(
        self, path: Path, collection: TextCollection | None, on_conflict: OnConflict
    ) -> Imported:
        """Return a file's scores, and what it calls relevant."""
        ...

    def write(
        self, path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
    ) -> None:
        """Write a run's scores, whole or not at all."""
        ...


def place(path: Path, number: int) -> str:
    """Return the place of a record, for messages."""
    rows = path.suffix == ".parquet" or path.is_dir()
    return f"{path} row {number}" if rows else f"{path}:{number}"
