"""The reference index: every inner product, in NumPy."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.models.indexes.base import Allowed, Rows, VectorIndex
from retrodistill.models.indexes.validation import matrix_of

QUERIES, DOCS = 256, 65_536
"""Rows of one block of inner products: 64 MiB of float32."""
MERGED = 2048
"""Rows up to which neighbouring blocks become one."""


class ExactIndex(VectorIndex):
    """All vectors, compared in blocks, so that memory beside them stays bounded.

    A loaded index reads its vectors from the file as it compares them, and vectors that nobody
    can change are not copied: neither needs to fit into memory. The tie rule holds at the cut
    too: of equal scores around rank `k`, the larger ids are kept.
    """

    kind: ClassVar[str] = "exact"
    vectors_file: ClassVar[str] = "vectors.npy"

    def __init__(self, dimension: int, argument: str = "") -> None:
        super().__init__(dimension, argument)
        self._blocks: list[NDArray[np.float32]] = []
        self._rank = np.zeros(0, np.int64)

    @classmethod
    def bytes_per_vector(cls, dimension: int) -> int:
        """Return 0: vectors stay in files."""
        return 0

    def _add(self, vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(vectors), DOCS):
            block = vectors[start : start + DOCS]
            self._blocks.append(block.copy() if _writable(block) else block)
            while len(self._blocks) > 1 and _mergeable(*map(len, self._blocks[-2:])):
                self._blocks[-2:] = [np.concatenate(self._blocks[-2:])]

    def _search(self, queries: NDArray[np.float32], k: int, allowed: Allowed | None) -> Rows:
        ids = self._ids
        if len(self._rank) != len(ids):
            descending = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
            rank = np.empty(len(ids), np.int64)
            rank[descending] = np.arange(len(ids))
            self._rank = rank  # whole, for threads may search
        parts = [
            self._search_block(queries[start : start + QUERIES], k, allowed)
            for start in range(0, len(queries), QUERIES)
        ]
        return np.concatenate([s for s, _ in parts]), np.concatenate([r for _, r in parts])

    def _search_block(self, queries: NDArray[np.float32], k: int, allowed: Allowed | None) -> Rows:
        """Return the best rows of a few queries, block of documents by block."""
        best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        start = 0
        for block in self._blocks:
            own = np.arange(len(block))
            if allowed is not None:
                own = np.flatnonzero(allowed.mask[start : start + len(block)])
            products = _products(queries, block, own)
            for query, found in enumerate(products):
                near = _at_least_kth(found, k)
                scores = np.concatenate([best[query][0], found[near]])
                rows = np.concatenate([best[query][1], own[near] + start])
                order = np.lexsort((self._rank[rows], -scores))[:k]
                best[query] = scores[order], rows[order]
            start += len(block)
        return np.stack([scores for scores, _ in best]), np.stack([rows for _, rows in best])

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        ends = np.cumsum([len(block) for block in self._blocks])
        cuts = np.searchsorted(rows, ends)  # the rows of a block are between two cuts
        spans = zip(self._blocks, ends, np.split(rows, cuts[:-1]), strict=True)
        return np.concatenate([block[own - (end - len(block))] for block, end, own in spans])

    def _write(self, path: Path) -> None:
        shape = (len(self._ids), self.dimension)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with path.open("wb") as stream:
            np.lib.format.write_array_header_2_0(stream, header)
            for block in self._blocks:
                stream.write(np.ascontiguousarray(block, "<f4").data)

    def _read(self, path: Path) -> None:
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{path} cannot be read ({error}). Embed again.") from error
        self._add(matrix_of(vectors, self.dimension, str(path)) if len(vectors) else vectors)


def _products(
    queries: NDArray[np.float32], block: NDArray[np.float32], own: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the inner products with some rows of a block; with most of them, none are copied."""
    if 2 * len(own) < len(block):
        return queries @ block[own].T
    products = queries @ block.T
    return products if len(own) == len(block) else products[:, own]


def _mergeable(before: int, last: int) -> bool:
    """Return whether to merge two blocks, so that each vector is copied a few times at most."""
    return before <= last and before + last <= MERGED


def _writable(array: NDArray[np.float32]) -> bool:
    """Return whether anybody can still change what the array shows."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return True
        owner = owner.base
    return False


def _at_least_kth(products: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the places of all values that reach the k-th highest one."""
    if len(products) <= k:
        return np.arange(len(products))
    kth = np.partition(products, len(products) - k)[len(products) - k]
    return np.flatnonzero(products >= kth)
