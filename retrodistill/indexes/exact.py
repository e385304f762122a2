"""The reference index: every inner product, in NumPy."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodistill.errors import DataError
from retrodistill.indexes.base import Rows, VectorIndex

QUERIES, DOCS = 256, 65_536
"""Rows of one block of inner products: 64 MiB of float32."""


class ExactIndex(VectorIndex):
    """All vectors in one matrix, compared in blocks, so that memory beside it stays bounded.

    The tie rule holds at the cut too: of equal scores around rank `k`, the larger ids are kept.
    """

    kind: ClassVar[str] = "exact"
    vectors_file: ClassVar[str] = "vectors.safetensors"

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._blocks: list[NDArray[np.float32]] = []

    def _add(self, vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(vectors), DOCS):
            self._blocks.append(vectors[start : start + DOCS].copy())

    def _search(self, queries: NDArray[np.float32], k: int) -> Rows:
        ids = self._ids
        descending = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
        rank = np.empty(len(ids), np.int64)
        rank[descending] = np.arange(len(ids))
        parts = [
            self._search_block(queries[start : start + QUERIES], k, rank)
            for start in range(0, len(queries), QUERIES)
        ]
        return np.concatenate([s for s, _ in parts]), np.concatenate([r for _, r in parts])

    def _search_block(self, queries: NDArray[np.float32], k: int, rank: NDArray[np.int64]) -> Rows:
        """Return the best rows of a few queries, block of documents by block."""
        best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        start = 0
        for block in self._blocks:
            products = queries @ block.T
            for query, found in enumerate(products):
                near = _at_least_kth(found, k)
                scores = np.concatenate([best[query][0], found[near]])
                rows = np.concatenate([best[query][1], near + start])
                order = np.lexsort((rank[rows], -scores))[:k]
                best[query] = scores[order], rows[order]
            start += len(block)
        return np.stack([scores for scores, _ in best]), np.stack([rows for _, rows in best])

    def _write(self, path: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"vectors": self._matrix()}, path)

    def _read(self, path: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            self._add(load_file(path)["vectors"])
        except (SafetensorError, KeyError) as error:
            raise DataError(f"{path} cannot be read ({error}). Embed again.") from error

    def _matrix(self) -> NDArray[np.float32]:
        empty = np.empty((0, self.dimension), np.float32)
        return np.concatenate([empty, *self._blocks])


def _at_least_kth(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the places of all scores that are not below the k-th best."""
    if len(scores) <= k:
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= kth)
