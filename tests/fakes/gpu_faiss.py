"""A stand-in for faiss-gpu's names, over faiss-cpu: copies of engines, and a graph, on the CPU.

It refuses what faiss refuses on a GPU, so that a call that could not work there fails here too.
"""

from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np

LIMIT = 2048


class Copy:
    """An engine that counts its searches, within a GPU's limits."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.kept: Any = None
        self.batches: list[int] = []

    def search(self, queries: np.ndarray, k: int, params: Any = None) -> Any:
        assert k <= LIMIT
        assert getattr(params, "nprobe", 0) <= LIMIT
        assert getattr(params, "sel", None) is None, "no selectors on a GPU here"
        self.batches.append(len(queries))
        return self.engine.search(queries, k, params=params)


class Cagra:
    """A graph of all vectors, built at once."""

    def __init__(self, resources: Any, dimension: int, metric: int, config: Any) -> None:
        assert metric == faiss.METRIC_INNER_PRODUCT
        assert config.graph_degree < config.intermediate_graph_degree
        self._built = faiss.IndexHNSWCagra(dimension, config.graph_degree // 2, metric)

    def train(self, vectors: np.ndarray) -> None:
        assert not self._built.ntotal
        self._built.add(vectors)

    def copyTo(self, engine: Any) -> None:
        self._built.base_level_only = engine.base_level_only
        engine.this, self._built.this = self._built.this, engine.this


class RefineType(type):
    """What faiss's own refinements are of, too."""

    def __instancecheck__(cls, engine: Any) -> bool:
        return isinstance(engine, faiss.IndexRefine)


class Refine(metaclass=RefineType):
    """A refinement over a copy, which faiss-cpu can only make over the copy's own engine."""

    def __new__(cls, base: Copy, codes: Any) -> Any:
        base.kept = base.engine
        base.engine = faiss.IndexRefine(base.engine, codes)
        return base


class Library:
    """The faiss module, with the names of its GPU build."""

    StandardGpuResources = GpuClonerOptions = GpuIndexCagraConfig = SimpleNamespace
    GpuIndexCagra = Cagra
    IndexRefine = Refine
    graph_build_algo_IVF_PQ = 1  # noqa: N815

    def __init__(self) -> None:
        self.copies: list[Copy] = []
        self.clustered = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(faiss, name)

    def index_cpu_to_gpu(self, resources: Any, device: int, engine: Any, options: Any) -> Any:
        assert not getattr(options, "useFloat16", False)
        if not engine.ntotal:  # the centroids of a k-means
            self.clustered += 1
            return faiss.clone_index(engine)
        supported = faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexIVFPQ
        assert isinstance(engine, supported), f"{type(engine).__name__} not implemented on GPU"
        assert engine.ntotal > 4
        copy = Copy(faiss.clone_index(engine))
        self.copies.append(copy)
        return copy
