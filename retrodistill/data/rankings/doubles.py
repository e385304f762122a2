"""The set that is most like another, by Jaccard similarity, exactly: an index over hashes.

The index is turned around, from a value to the sets that have it, so that only pairs of sets that
share a value are looked at. Where pairs below a similarity do not count, fewer are: of two sets
whose similarity is t, each of n values, the `n - ceil(t n) + 1` rarest of one share a value with
those of the other.

Source: prefix filtering, Chaudhuri et al. 2006; Bayardo et al. 2007 (All-Pairs).
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PAIRS = 1 << 22
"""Shared values that are counted at a time, at most, but for those of one set."""


class Sets(NamedTuple):
    """Sets of hashes, one behind the other."""

    values: NDArray[np.uint64]
    """Each once in its set."""

    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, sets: Iterable[NDArray[np.uint64]]) -> "Sets":
        """Return sets of distinct hashes."""
        arrays = [np.empty(0, np.uint64), *sets]
        return cls(np.concatenate(arrays), np.array([len(array) for array in arrays[1:]], np.int64))

    @classmethod
    def joined(cls, parts: Iterable["Sets"]) -> "Sets":
        """Return the sets of all parts."""
        values, lengths = zip(cls.of([]), *parts, strict=True)
        return cls(np.concatenate(values), np.concatenate(lengths))

    def __len__(self) -> int:
        return len(self.lengths)


def most_alike(
    sets: Sets, others: Iterable[Sets], *, least: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each set's highest Jaccard similarity with one of the others, and its place there.

    Of equally similar ones, the first; 0 and -1 where none shares anything, or none reaches a
    similarity of `least`. The others pass by part by part, so that not all of them need to be in
    memory.
    """
    best, places = np.zeros(len(sets)), np.full(len(sets), -1)
    index = _Index(sets, least)
    offset = 0
    for part in others:
        for rows, columns, similarity in index.pairs(part):
            better = similarity > best[rows]
            rows, columns, similarity = rows[better], columns[better], similarity[better]
            np.maximum.at(best, rows, similarity)
            highest = np.flatnonzero(similarity == best[rows])[::-1]  # the first is written last
            places[rows[highest]] = offset + columns[highest]
        offset += len(part)
    return best, places


class _Index:
    """Sets by their values, rarest first."""

    def __init__(self, sets: Sets, least: float) -> None:
        self.sets = sets
        self.least = least
        vocabulary, counts = np.unique(sets.values, return_counts=True)
        self.vocabulary = vocabulary
        self.ranks = np.empty(len(counts), np.int64)
        self.ranks[np.argsort(counts, kind="stable")] = np.arange(len(counts))
        self.rows = self._matrix(sets)
        self.by_value = self.rows.T.tocsr()
        self.by_rare_value = self._rare(self.rows, sets).T.tocsr() if least else self.by_value

    def pairs(
        self, part: Sets
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
        """Yield sets, sets of the part, and their similarities, which reach the least.

        All pairs that share a value are among them; they are in the order of the part.
        """
        whole = self._matrix(part)
        rare = self._rare(whole, part)
        counted, compared = _products(whole, self.by_value), _products(rare, self.by_rare_value)
        # Comparing a pair costs about twice its values, counting what it shares one for each.
        costs = 2 * compared.sum() * (1 + whole.nnz / max(1, len(part)))
        by_rare = bool(self.least) and costs < counted.sum()
        probes, index = (rare, self.by_rare_value) if by_rare else (whole, self.by_value)
        bounds = np.cumsum(compared if by_rare else counted) // PAIRS
        for start, end in _stretches(bounds):
            shared = (probes[start:end] @ index).tocoo()
            columns, rows = shared.coords[0].astype(np.int64) + start, shared.coords[1]
            common = shared.data
            if by_rare:
                common = self.rows[rows].multiply(whole[columns]).sum(axis=1)
            union = self.sets.lengths[rows] + part.lengths[columns] - common
            similarity = common / union
            reached = similarity >= self.least
            yield rows[reached], columns[reached], similarity[reached]

    def _matrix(self, sets: Sets) -> "csr_array":
        """Return a row for each set, with a one at the rank of each value that the index has."""
        from scipy.sparse import csr_array

        at = np.searchsorted(self.vocabulary, sets.values).clip(max=max(0, len(self.ranks) - 1))
        indexed = np.flatnonzero(self.vocabulary[at] == sets.values) if len(self.ranks) else at[:0]
        owners = np.repeat(np.arange(len(sets)), sets.lengths)[indexed]
        ends = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(sets)))])
        shape = (len(sets), max(1, len(self.ranks)))
        ones = np.ones(len(indexed), np.int32)
        matrix = csr_array((ones, self.ranks[at[indexed]], ends), shape=shape)
        matrix.sort_indices()
        return matrix

    def _rare(self, matrix: "csr_array", sets: Sets) -> "csr_array":
        """Return the rarest values of each set; those that the index lacks are rarest of all."""
        from scipy.sparse import csr_array

        counts = np.diff(matrix.indptr)
        lacking = sets.lengths - counts
        least = np.ceil(self.least * sets.lengths - 1e-9).astype(np.int64)
        taken = np.clip(sets.lengths - least + 1 - lacking, 0, counts)
        positions = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], counts)
        chosen = positions < np.repeat(taken, counts)
        ends = np.concatenate([[0], np.cumsum(taken)])
        return csr_array((matrix.data[chosen], matrix.indices[chosen], ends), shape=matrix.shape)


def _products(matrix: "csr_array", by_value: "csr_array") -> NDArray[np.int64]:
    """Return for each row how many entries of the index its values have."""
    entries = np.diff(by_value.indptr)[matrix.indices]
    sums = np.concatenate([[0], np.cumsum(entries, dtype=np.int64)])
    counts: NDArray[np.int64] = np.diff(sums[matrix.indptr])
    return counts


def _stretches(labels: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield where each stretch of equal labels starts and ends."""
    bounds = np.flatnonzero(np.diff(labels, prepend=-1, append=-1)).tolist()
    yield from pairwise(bounds)
