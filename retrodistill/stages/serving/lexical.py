"""BM25 over the documents that an index serves, as they are now."""

from collections.abc import Iterable, Iterator, Sequence, Set
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from retrodistill.models.retrievers.bm25 import Lexicon


class Source(Protocol):
    """Documents that may change: `version` grows with each change."""

    version: int

    def texts(self) -> Iterable[tuple[str, str]]:
        """Yield id and text of each document."""
        ...


class Lexical:
    """BM25 over a source of documents, whose lexicon is made again after the source has changed.

    The first search after a change waits for that: about a second for 10,000 passages. Searches by
    several threads at once are fine.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = Lock()
        self._made: tuple[int, Lexicon, NDArray[np.object_]] | None = None

    def search(
        self, queries: Sequence[str], k: int, *, allowed: Set[str] | None = None
    ) -> list[tuple[list[str], NDArray[np.float32]]]:
        """Return ids and scores of each query's best documents of those that are allowed."""
        lexicon, names = self._current()
        excluded = None
        if allowed is not None:
            excluded = np.fromiter((name not in allowed for name in names), np.bool_, len(names))
        hits = []
        for query in queries:
            scores = lexicon.scores(query)
            if excluded is not None:
                scores = np.where(excluded, np.float32(0), scores)
            rows = np.flatnonzero(scores > 0)
            if len(rows) > k:
                rows = rows[np.argpartition(-scores[rows], k - 1)[:k]]
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            hits.append((names[rows].tolist(), scores[rows]))
        return hits

    def warm(self) -> None:
        """Make the lexicon, so that no search waits for it."""
        self._current()

    def _current(self) -> "tuple[Lexicon, NDArray[np.object_]]":
        from retrodistill.models.retrievers.bm25 import Lexicon

        with self._lock:
            version = self._source.version
            if self._made is None or self._made[0] != version:
                names: list[str] = []
                lexicon = Lexicon(_passing(self._source.texts(), names))
                self._made = version, lexicon, np.array(names, object)
            return self._made[1:]


def _passing(rows: Iterable[tuple[str, str]], names: list[str]) -> Iterator[str]:
    """Yield the texts of rows one by one, so that none stays in memory, and append their ids."""
    for name, text in rows:
        names.append(name)
        yield text
