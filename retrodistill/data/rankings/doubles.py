"""The set that is most like another, by Jaccard similarity, exactly: an index over hashes."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PAIRS = 1 << 22
"""Pairs that are compared at a time, at most, but for those of one set."""


class Sets(NamedTuple):
    """Sets of hashes, one behind the other."""

    values: NDArray[np.uint64]
    """Each once in its set."""

    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, sets: Sequence[NDArray[np.uint64]]) -> "Sets":
        """Return sets of distinct hashes."""
        lengths = np.array([len(own) for own in sets], np.int64)
        return cls(np.concatenate([np.empty(0, np.uint64), *sets]), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def pieces(self, size: int) -> "Iterable[tuple[int, Sets]]":
        """Yield the place of the first of at most `size` sets, and these."""
        bounds = np.concatenate([[0], np.cumsum(self.lengths)])
        for start in range(0, len(self), size):
            end = min(start + size, len(self))
            yield start, Sets(self.values[bounds[start] : bounds[end]], self.lengths[start:end])


def most_alike(sets: Sets, others: Iterable[Sets]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each set's highest Jaccard similarity with one of the others, and its place there.

    Of equally similar ones, the first; -1 where none shares anything. The others pass by part by
    part, so that not all of them need to be in memory.
    """
    best, places = np.zeros(len(sets)), np.full(len(sets), -1)
    vocabulary = np.unique(sets.values)
    left = _matrix(sets, vocabulary)
    first = 0
    for part in others:
        for start, piece in part.pieces(max(1, PAIRS // max(1, len(sets)))):
            shared = (left @ _matrix(piece, vocabulary).T).tocoo()
            rows, columns = shared.coords
            union = sets.lengths[rows] + piece.lengths[columns] - shared.data
            table = np.zeros((len(sets), len(piece)))
            table[rows, columns] = shared.data / union
            column = table.argmax(1)
            similarity = table[np.arange(len(sets)), column]
            better = similarity > best
            best[better] = similarity[better]
            places[better] = first + start + column[better]
        first += len(part)
    return best, places


def _matrix(sets: Sets, vocabulary: NDArray[np.uint64]) -> "csr_array":
    """Return a row for each set, with a one for each value that the vocabulary has."""
    from scipy.sparse import csr_array

    codes = np.searchsorted(vocabulary, sets.values).clip(max=max(0, len(vocabulary) - 1))
    known = np.flatnonzero(vocabulary[codes] == sets.values) if len(vocabulary) else codes[:0]
    owners = np.repeat(np.arange(len(sets)), sets.lengths)[known]
    shape = (len(sets), max(1, len(vocabulary)))
    return csr_array((np.ones(len(known), np.int64), (owners, codes[known])), shape=shape)
