"""FAISS on a CUDA GPU: lists learned there, engines copied there to be searched, CAGRA graphs.

The one place that knows the names of faiss-gpu and faiss-gpu-cuvs. Whatever a GPU cannot search
(a condition, deleted rows, more than LIMIT results or lists) is searched on the CPU, by the engine
that the copy was made from.

Written by the documented calls of faiss 1.15 and tested with a stand-in for them; not measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, MissingExtra

LIMIT = 2048
"""Results of a query, and lists that it looks into, that FAISS's kernels can hold at most."""
FEWEST = 1000
"""Fewer vectors are not copied: transfers of three or four hang (faiss#4260)."""
BATCH = 256
"""Queries at once: memory grows with them, and from 512 on recall falls (cuvs#1187)."""
SUBQUANTIZERS = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""Bytes of a product quantizer's code that the kernels are compiled for."""
DEGREE = 32
"""Neighbours of a node of a CAGRA graph; twice as many while it is built."""
ENTRIES = 32
"""Nodes at which a search of a graph of one level begins."""


class GpuCopy:
    """An engine on the GPU, for searches of one thread at a time."""

    def __init__(self, engine: Any, kept: tuple[Any, ...]) -> None:
        self._engine = engine
        self._kept = kept  # what the engine refers to: freed, it would crash (faiss#4742)
        self._lock = Lock()

    def search(
        self, queries: NDArray[np.float32], k: int, parameters: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and rows of each query's best, -1 where there are too few."""
        with self._lock:  # FAISS's resources are of one thread
            parts = [
                self._engine.search(queries[start : start + BATCH], k, params=parameters)
                for start in range(0, len(queries), BATCH)
            ]
        scores, rows = zip(*parts, strict=True)
        return np.concatenate(scores), np.concatenate(rows)


class Gpu:
    """The first visible GPU.

    Raises:
        MissingExtra: the installed faiss knows no GPU.
        ConfigError: there is no GPU.

    """

    def __init__(self) -> None:
        self._faiss = _gpu_faiss()
        self._resources = self._faiss.StandardGpuResources()

    def copied(self, engine: Any) -> GpuCopy | None:
        """Return a copy of an engine on the GPU, or None if it cannot be searched there."""
        faiss = self._faiss
        engine = faiss.downcast_index(engine)
        if engine.ntotal < FEWEST:
            return None
        if isinstance(engine, faiss.IndexRefine):
            base = self._transferred(faiss.downcast_index(engine.base_index))
            if base is None:
                return None
            # The GPU finds k_factor * k candidates by their codes, the CPU compares these again.
            return GpuCopy(faiss.IndexRefine(base, engine.refine_index), (base, engine, self))
        whole = self._transferred(engine)
        return None if whole is None else GpuCopy(whole, (engine, self))

    def _transferred(self, engine: Any) -> Any | None:
        faiss = self._faiss
        if isinstance(engine, faiss.IndexIVFPQ):
            supported = engine.pq.nbits == 8 and engine.pq.M in SUBQUANTIZERS
        else:
            supported = isinstance(engine, faiss.IndexFlat | faiss.IndexIVFFlat)
        if not supported:
            return None
        options = faiss.GpuClonerOptions()
        options.useFloat16 = False  # inner products in it can deadlock (CUDA 12.9)
        return faiss.index_cpu_to_gpu(self._resources, 0, engine, options)

    @contextmanager
    def learning(self, engine: Any) -> Iterator[None]:
        """Let the lists of an engine, if it has any, be learned on the GPU within the block."""
        faiss = self._faiss
        lists = faiss.try_extract_index_ivf(engine)
        if lists is None:
            yield
            return
        flat = faiss.IndexFlatIP(lists.d)
        clustering = faiss.index_cpu_to_gpu(self._resources, 0, flat, faiss.GpuClonerOptions())
        lists.clustering_index = clustering
        try:
            yield
        finally:
            lists.clustering_index = None

    def graph(self, vectors: NDArray[np.float32]) -> Any:
        """Return a CAGRA graph of all vectors as an engine of the CPU: an HNSW of one level.

        Source: Ootomo et al. 2024, "CAGRA: Highly Parallel Graph Construction and Approximate
        Nearest Neighbor Search for GPUs", arXiv:2308.15136.

        Raises:
            MissingExtra: the installed faiss is built without cuVS.

        """
        faiss = self._faiss
        if not hasattr(faiss, "GpuIndexCagra"):
            raise MissingExtra(
                "--index cagra needs a faiss that is built with cuVS, but this one is not. Install "
                "`faiss-gpu-cuvs` in place of faiss-gpu or faiss-cpu, or use --index hnsw."
            )
        config = faiss.GpuIndexCagraConfig()
        config.graph_degree, config.intermediate_graph_degree = DEGREE, 2 * DEGREE
        config.build_algo = faiss.graph_build_algo_IVF_PQ
        built = faiss.GpuIndexCagra(
            self._resources, vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config
        )
        built.train(vectors)  # builds the whole graph
        engine = faiss.IndexHNSWCagra()
        engine.base_level_only = True  # before the copy: it says what is copied
        built.copyTo(engine)
        engine.num_base_level_search_entrypoints = ENTRIES
        return engine


def code_bytes(dimension: int) -> int:
    """Return the bytes of a product quantizer's code: about half a byte for four dimensions."""
    fitting = [size for size in SUBQUANTIZERS if dimension % size == 0 and size <= dimension / 8]
    return max(fitting, default=1)


def _gpu_faiss() -> Any:
    import faiss  # whoever has an index has it

    if not hasattr(faiss, "StandardGpuResources"):
        raise MissingExtra(
            "--device cuda needs a faiss that knows GPUs. Run `pip uninstall faiss-cpu`, for both "
            "builds are one module, then `pip install 'retrodistill[gpu]'`; or omit --device."
        )
    if faiss.get_num_gpus() < 1:
        raise ConfigError("--device cuda: faiss sees no GPU here. Omit --device.")
    return faiss
