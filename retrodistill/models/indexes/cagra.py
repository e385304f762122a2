"""CAGRA: a graph that a GPU builds at once, searched on the CPU as an HNSW of one level."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.logging import log
from retrodistill.models.indexes.base import Allowed, Rows
from retrodistill.models.indexes.faiss import SMALL, Effort, FaissIndex, new_engine


class CagraIndex(FaissIndex):
    """A graph of near neighbours that a GPU builds in minutes, and any CPU searches.

    Vectors are collected, and the graph is built when the index is first searched or written where
    it may use a GPU. Until then, and after vectors were added where there is none, all of them are
    compared: slower, and exact.
    """

    kind: ClassVar[str] = "cagra"
    line: ClassVar[str] = "Flat"
    link_bytes: ClassVar[int] = 144

    @property
    def efforts(self) -> list[Effort]:
        """The efforts that may be tried: of the graph."""
        self._build()
        return super().efforts

    @property
    def has_graph(self) -> bool:
        """Whether there is a graph of all vectors."""
        return hasattr(self._engine, "hnsw")

    def _add(self, vectors: NDArray[np.float32]) -> None:
        if self.has_graph:  # it cannot grow
            log.info("vectors were added to a cagra graph: all are compared until it is built.")
            engine = new_engine(self.line, self.dimension)
            engine.add(self._vectors(np.arange(len(self._ids))))
            self._engine = engine
        super()._add(vectors)

    def _search(self, queries: NDArray[np.float32], k: int, allowed: Allowed | None) -> Rows:
        self._build()
        return super()._search(queries, k, allowed)

    def _write(self, path: Path) -> None:
        self._build()
        super()._write(path)

    def _build(self) -> None:
        if self.gpu is None or self.has_graph or len(self._ids) < SMALL:
            return
        self._engine = self.gpu.graph(self._vectors(np.arange(len(self._ids))))
