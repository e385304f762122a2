"""Indexes of the faiss library: all vectors (flat), and a graph over them (HNSW)."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodistill.errors import ConfigError, DataError, MissingExtra
from retrodistill.indexes.base import Rows, VectorIndex


class FaissIndex(VectorIndex):
    """A faiss index of the inner product under string ids."""

    vectors_file: ClassVar[str] = "index.faiss"

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._engine = self._make(_faiss())

    @abstractmethod
    def _make(self, faiss: Any) -> Any:
        """Return an empty faiss index."""

    def _add(self, vectors: NDArray[np.float32]) -> None:
        self._engine.add(vectors)

    def _search(self, queries: NDArray[np.float32], k: int) -> Rows:
        scores, rows = self._engine.search(queries, k)
        return scores, rows

    def _write(self, path: Path) -> None:
        _faiss().write_index(self._engine, str(path))

    def _read(self, path: Path) -> None:
        try:
            self._engine = _faiss().read_index(str(path))
        except RuntimeError as error:
            raise DataError(f"{path} cannot be read by faiss ({error}). Embed again.") from error


class FlatIndex(FaissIndex):
    """Every inner product, in faiss: exact, and fast up to about a million vectors."""

    kind: ClassVar[str] = "flat"

    def _make(self, faiss: Any) -> Any:
        return faiss.IndexFlatIP(self.dimension)


class HNSWIndex(FaissIndex):
    """A graph of near neighbours: approximate, in time about logarithmic in the vectors.

    A node keeps `m` neighbours (twice that on the lowest level). `ef_construction` and
    `ef_search` are the candidates held while adding and while searching; a search for more than
    `ef_search` documents holds as many. Made for vectors of one length, as models that end in a
    normalisation give.

    Source: Malkov and Yashunin 2016, arXiv:1603.09320.
    """

    kind: ClassVar[str] = "hnsw"

    def __init__(
        self, dimension: int, *, m: int = 32, ef_construction: int = 200, ef_search: int = 64
    ) -> None:
        for name, value, low in (
            ("m", m, 2),
            ("ef_construction", ef_construction, 1),
            ("ef_search", ef_search, 1),
        ):
            if value < low:
                raise ConfigError(f"{name} must be at least {low}, but it is {value}.")
        self.m, self.ef_construction, self.ef_search = m, ef_construction, ef_search
        super().__init__(dimension)

    def _make(self, faiss: Any) -> Any:
        engine = faiss.IndexHNSWFlat(self.dimension, self.m, faiss.METRIC_INNER_PRODUCT)
        engine.hnsw.efConstruction = self.ef_construction
        return engine

    def _search(self, queries: NDArray[np.float32], k: int) -> Rows:
        breadth = _faiss().SearchParametersHNSW(efSearch=max(self.ef_search, k))
        scores, rows = self._engine.search(queries, k, params=breadth)
        return scores, rows

    def _settings(self) -> dict[str, Any]:
        return {
            "m": self.m,
            "ef_construction": self.ef_construction,
            "ef_search": self.ef_search,
        }


def _faiss() -> Any:
    """Return the faiss library.

    Raises:
        MissingExtra: neither of its builds is installed.

    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra(
            "this index needs faiss. Install it with `pip install 'retrodistill[cpu]'` "
            "(or `'retrodistill[gpu]'` beside a CUDA GPU), or use --index exact."
        ) from error
    return faiss
