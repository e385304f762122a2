"""Indexes of the faiss library: whole vectors, codes of them, graphs, and lists of near ones.

A kind is a line of faiss's factory language; `faiss:LINE` takes any other. What a search may cost
is an `effort`: `nprobe` (lists that are looked into), `ef_search` (breadth of a walk in a graph),
`k_factor` (how many times k candidates are compared again with finer codes).
"""

from contextlib import nullcontext
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.models.indexes.base import Allowed, Rows, VectorIndex
from retrodistill.models.indexes.gpu import LIMIT, Gpu, GpuCopy, code_bytes
from retrodistill.models.indexes.layout import pieces
from retrodistill.models.indexes.planning import MANY, Plan, choose
from retrodistill.models.indexes.products import largest, merged
from retrodistill.models.indexes.validation import matrix_of

Effort = dict[str, int]

SMALL = 1000
"""Fewer vectors than this are not worth learning from: they are kept whole."""
PER_LIST = 39
"""Vectors that a list holds on average at least, as k-means of faiss wants for learning."""
BLOCK = 8_192
"""Vectors that a scan looks at together."""
DEFAULTS: Effort = {"nprobe": 16, "ef_search": 64, "k_factor": 8}
GRID: dict[str, tuple[int, ...]] = {
    "nprobe": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    "ef_search": (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024),
    "k_factor": (1, 2, 4, 8, 16, 32),
}
STEPS = 32
"""Inner products that a step of a graph's walk costs."""
MAPPING = Lock()
"""Held while faiss makes its map from rows to lists, once for an index: threads may search."""


class FaissIndex(VectorIndex):
    """Any index of faiss's factory, compared by inner product: `faiss:IVF1024,SQ8`.

    A line may hold `{lists}`, the number of lists that suits the number of vectors, and
    `{quarter}`, a quarter of the dimension.
    """

    kind: ClassVar[str] = "faiss"
    vectors_file: ClassVar[str] = "index.faiss"
    line: ClassVar[str] = ""
    gpu_line: ClassVar[str] = ""
    """Another line where a GPU is to search it."""
    uses_gpu: ClassVar[bool] = True
    code_bytes: ClassVar[float] = 4.0
    """Bytes a dimension."""
    link_bytes: ClassVar[int] = 0
    """Bytes a vector beside its codes."""

    def __init__(
        self,
        dimension: int,
        argument: str = "",
        *,
        factory: str = "",
        effort: Effort | None = None,
    ) -> None:
        if not self.line and not argument:
            raise ConfigError(
                "--index faiss needs what to make, in faiss's factory language, as in "
                "faiss:IVF1024,SQ8."
            )
        super().__init__(dimension, argument if self.line else "")
        _faiss()
        self._wanted = self.line or argument
        self._factory = factory
        self._engine: Any = None
        self.gpu: Gpu | None = None
        self._copy: GpuCopy | None = None
        self.effort: Effort = DEFAULTS | _checked(effort or {})

    @classmethod
    def bytes_per_vector(cls, dimension: int) -> int:
        """Return the bytes of the codes and links; a line of `faiss:` counts as whole vectors."""
        return int(cls.code_bytes * dimension) + cls.link_bytes

    def use_gpu(self) -> None:
        """Learn lists, and search, on the GPU from now on, where this kind can.

        Raises:
            MissingExtra: the installed faiss knows no GPU.
            ConfigError: there is no GPU.

        """
        self.gpu, self._copy = Gpu(), None

    def train(self, vectors: NDArray[np.float32], total: int) -> None:
        """Learn lists and codes from a sample of the `total` vectors.

        Raises:
            ConfigError: faiss cannot make such an index.

        """
        if self._ids:
            raise ConfigError("a non-empty index cannot be retrained: create a new one.")
        sample = matrix_of(vectors, self.dimension, "the sample")
        self._factory, self._engine = self._learned(sample, total)

    def _learned(self, sample: NDArray[np.float32], total: int) -> tuple[str, Any]:
        """Return a factory line and its empty engine, a flat one if the sample is too small."""
        sizes = range(max(1, self.dimension // 4), 0, -1)
        quarter = next(size for size in sizes if self.dimension % size == 0)
        lists = max(1, min(int(4 * total**0.5), len(sample) // PER_LIST))
        try:
            wanted = self.gpu_line if self.gpu and self.gpu_line else self._wanted
            factory = wanted.format(
                lists=lists, quarter=quarter, code_bytes=code_bytes(self.dimension)
            )
        except (LookupError, ValueError) as error:
            raise ConfigError(
                f"the line {self._wanted!r} for faiss may hold {{lists}} and {{quarter}}, and no "
                "other braces."
            ) from error
        engine = new_engine(factory, self.dimension)
        if engine.is_trained:
            return factory, engine
        if total < SMALL or len(sample) < SMALL:
            return "Flat", new_engine("Flat", self.dimension)
        try:
            with nullcontext() if self.gpu is None else self.gpu.learning(engine):
                engine.train(sample)
        except RuntimeError as error:
            raise ConfigError(
                f"faiss cannot learn {factory!r} from {len(sample):,} vectors: "
                f"{_reason(error)}. Ask for fewer lists or codes, or take another --index."
            ) from error
        return factory, engine

    @property
    def efforts(self) -> list[Effort]:
        """The efforts that may be tried, by the settings that this engine has."""
        knobs = _knobs(self._engine)
        found = [dict(zip(knobs, values, strict=True)) for values in product(*knobs.values())]
        return found or [{}]

    def _add(self, vectors: NDArray[np.float32]) -> None:
        held = len(self._ids)
        factory, engine = self._factory, self._engine
        grown = factory == "Flat" != self._wanted and held + len(vectors) >= SMALL
        if engine is None or grown:
            before = self._vectors(np.arange(held)).copy() if held else vectors[:0]
            factory, engine = self._learned(np.concatenate([before, vectors]), held + len(vectors))
            engine.add(before)
        engine.add(vectors)
        self._factory, self._engine = factory, engine  # only now: what failed changes nothing
        self._copy = None

    def _search(self, queries: NDArray[np.float32], k: int, allowed: Allowed | None) -> Rows:
        if allowed is None and (copy := self._gpu_copy(k)) is not None:
            scores, found = copy.search(queries, k, self._parameters(k, None, 1.0))
            return self._completed(queries, scores, found, None)
        if allowed is None and len(queries) >= MANY and _compares_all(self._engine):
            return self._scan(queries, k, np.arange(len(self._ids)))
        if allowed is not None and self._plan(allowed, k, len(queries)).how == "scan":
            return self._scan(queries, k, allowed.rows)
        share = 1.0 if allowed is None else allowed.count / len(self._ids)
        scores, found = self._engine.search(queries, k, params=self._parameters(k, allowed, share))
        return self._completed(queries, scores, found, allowed)

    def _completed(
        self,
        queries: NDArray[np.float32],
        scores: NDArray[np.float32],
        found: NDArray[np.int64],
        allowed: Allowed | None,
    ) -> Rows:
        """Return full lists: each row compared for the queries that found too few."""
        short = np.flatnonzero((found < 0).any(axis=1))
        if len(short):  # as where the lists that are looked into hold fewer than k
            rows = np.arange(len(self._ids)) if allowed is None else allowed.rows
            scores[short], found[short] = self._scan(queries[short], found.shape[1], rows)
        return scores, found

    def _gpu_copy(self, k: int) -> GpuCopy | None:
        """Return the copy of the engine on the GPU, if there is one that can find `k`."""
        if self.gpu is None or self._engine is None:
            return None
        knobs = _knobs(self._engine)
        factor = self.effort["k_factor"] if "k_factor" in knobs else 1
        if k * factor > LIMIT or ("nprobe" in knobs and self.effort["nprobe"] > LIMIT):
            return None
        if self._copy is None:
            self._copy = self.gpu.copied(self._engine)
        return self._copy

    def _plan(self, allowed: Allowed, k: int, queries: int) -> Plan:
        engine, effort = _core(self._engine), self.effort
        if allowed.deleted_only and 2 * allowed.count >= len(self._ids):
            shared = queries >= MANY and _compares_all(self._engine)
            return Plan("scan" if shared else "search", allowed.count, len(self))
        if hasattr(engine, "hnsw"):
            walk = max(effort["ef_search"], k) * STEPS
        elif hasattr(engine, "nprobe"):
            walk = len(self._ids) * min(1.0, effort["nprobe"] / engine.nlist)
        else:
            walk = len(self._ids)
        return choose(allowed.count, len(self), queries, walk)

    def _scan(self, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64]) -> Rows:
        """Return the best of these rows, each compared with each query."""
        best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for own in pieces(rows, max(BLOCK, 32 * k)):
            scores, places = largest(queries, self._vectors(own), min(k, len(own)))
            best = merged(best, (scores, own[places]), k)
        return best

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of some ascending rows, as exact as the engine knows them."""
        first, last = int(rows[0]), int(rows[-1]) + 1
        run = last - first == len(rows)
        matrix = _matrix(getattr(self._engine, "storage", None) or self._engine)
        if matrix is not None:
            return matrix[first:last] if run else matrix[rows]
        if hasattr(core := _core(self._engine), "make_direct_map"):
            with MAPPING:
                core.make_direct_map()
        found = (
            self._engine.reconstruct_n(first, len(rows))
            if run
            else self._engine.reconstruct_batch(rows)
        )
        return np.asarray(found, np.float32)

    def _parameters(self, k: int, allowed: Allowed | None, share: float) -> Any:
        """Return faiss's search parameters, wider the smaller the share that may be found."""
        faiss = _faiss()
        chosen: dict[str, Any] = {}
        if allowed is not None:
            chosen["sel"] = faiss.IDSelectorBitmap(allowed.bits)

        def of(engine: Any) -> Any:
            engine = faiss.downcast_index(engine)
            if isinstance(engine, faiss.IndexRefine):
                inner = of(engine.base_index)
                factor = self.effort["k_factor"]
                return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
            if isinstance(engine, faiss.IndexPreTransform):
                return faiss.SearchParametersPreTransform(index_params=of(engine.index))
            if hasattr(engine, "hnsw"):
                breadth = min(int(max(self.effort["ef_search"], k) / share), engine.ntotal)
                return faiss.SearchParametersHNSW(efSearch=max(1, breadth), **chosen)
            if hasattr(engine, "nprobe"):
                lists = min(int(self.effort["nprobe"] / share), engine.nlist)
                return faiss.SearchParametersIVF(nprobe=max(1, lists), **chosen)
            return faiss.SearchParameters(**chosen) if chosen else None

        return of(self._engine)

    def _write(self, path: Path) -> None:
        engine = self._engine if self._engine is not None else new_engine("Flat", self.dimension)
        _faiss().write_index(engine, str(path))

    def _read(self, path: Path) -> None:
        try:
            engine = _faiss().read_index(str(path))
        except RuntimeError as error:
            raise DataError(f"{path} cannot be read by faiss ({error}). Embed again.") from error
        if engine.ntotal and engine.d != self.dimension:
            raise DataError(
                f"{path} holds vectors of {engine.d} dimensions, not {self.dimension}. Embed again."
            )
        self._engine = engine if engine.ntotal else None

    def _settings(self) -> dict[str, Any]:
        return {
            "argument": "" if self.line else self._wanted,
            "factory": self._factory,
            "effort": self.effort,
        }


class FlatIndex(FaissIndex):
    """Every inner product, in faiss: exact, and fast up to about a million vectors."""

    kind: ClassVar[str] = "flat"
    line: ClassVar[str] = "Flat"


class ScalarIndex(FaissIndex):
    """Every inner product with vectors of one byte a dimension: a quarter of the memory."""

    kind: ClassVar[str] = "sq8"
    line: ClassVar[str] = "SQ8"
    uses_gpu: ClassVar[bool] = False
    code_bytes: ClassVar[float] = 1.0


class BinaryIndex(FaissIndex):
    """One bit a dimension finds k_factor times k candidates, one byte a dimension orders them.

    Source: the bits are RaBitQ's, Gao and Long 2024, arXiv:2405.12497, behind a random rotation.
    """

    kind: ClassVar[str] = "binary"
    line: ClassVar[str] = "RR,RaBitQ,Refine(SQ8)"
    uses_gpu: ClassVar[bool] = False
    code_bytes: ClassVar[float] = 1.125
    link_bytes: ClassVar[int] = 8


class HNSWIndex(FaissIndex):
    """A graph of near neighbours: approximate, in time about logarithmic in the vectors.

    A node keeps 32 neighbours (64 on the lowest level). Made for vectors of one length, as models
    that end in a normalisation give.

    Source: Malkov and Yashunin 2016, arXiv:1603.09320.
    """

    kind: ClassVar[str] = "hnsw"
    line: ClassVar[str] = "HNSW32"
    uses_gpu: ClassVar[bool] = False
    link_bytes: ClassVar[int] = 272


class ListsIndex(FaissIndex):
    """Lists of near vectors, of which `nprobe` are looked into: whole vectors (IVF-flat)."""

    kind: ClassVar[str] = "ivf"
    line: ClassVar[str] = "IVF{lists},Flat"
    link_bytes: ClassVar[int] = 8


class ProductIndex(FaissIndex):
    """Lists of codes, half a byte for four dimensions, then of one byte a dimension (IVF-PQ).

    Source: Jégou, Douze and Schmid 2011, "Product quantization for nearest neighbor search".
    """

    kind: ClassVar[str] = "ivf-pq"
    line: ClassVar[str] = "IVF{lists},PQ{quarter}x4fs,Refine(SQ8)"
    gpu_line: ClassVar[str] = "IVF{lists},PQ{code_bytes}np,Refine(SQ8)"
    code_bytes: ClassVar[float] = 1.125
    link_bytes: ClassVar[int] = 8


def _checked(effort: Effort) -> Effort:
    """Return an effort whose settings exist and are whole numbers above 0.

    Raises:
        ConfigError: one is not.

    """
    for name, value in dict(effort).items():
        if name not in DEFAULTS or type(value) is not int or value < 1:
            raise ConfigError(
                f"invalid effort {name}={value!r}: {', '.join(DEFAULTS)} are whole numbers above 0."
            )
    return effort


def _matrix(engine: Any) -> NDArray[np.float32] | None:
    """Return the vectors of an engine that holds them whole, row by row, in place; or None."""
    faiss = _faiss()
    engine = faiss.downcast_index(engine)
    if not isinstance(engine, faiss.IndexFlat):
        return None
    vectors: NDArray[np.float32] = faiss.rev_swig_ptr(engine.get_xb(), engine.ntotal * engine.d)
    return vectors.reshape(-1, engine.d)


def _compares_all(engine: Any) -> bool:
    """Return whether a search is the product with every vector, whole or of a byte a dimension."""
    faiss = _faiss()
    return isinstance(faiss.downcast_index(engine), faiss.IndexFlat | faiss.IndexScalarQuantizer)


def _core(engine: Any) -> Any:
    """Return the engine inside rotations and refinements: the one that walks or holds lists."""
    faiss = _faiss()
    engine = faiss.downcast_index(engine)
    if isinstance(engine, faiss.IndexRefine):
        return _core(engine.base_index)
    return _core(engine.index) if isinstance(engine, faiss.IndexPreTransform) else engine


def _knobs(engine: Any) -> dict[str, list[int]]:
    """Return the settings that this engine's search has, and the values to try."""
    core = _core(engine)
    names = {
        "nprobe": hasattr(core, "nprobe"),
        "ef_search": hasattr(core, "hnsw"),
        "k_factor": isinstance(_faiss().downcast_index(engine), _faiss().IndexRefine),
    }
    limit = {"nprobe": getattr(core, "nlist", 1)}
    return {
        name: sorted({min(value, limit.get(name, value)) for value in GRID[name]})
        for name, there in names.items()
        if there
    }


def new_engine(line: str, dimension: int) -> Any:
    """Return an empty engine of faiss's factory.

    Raises:
        ConfigError: faiss does not know what the line says.

    """
    faiss = _faiss()
    try:
        engine = faiss.index_factory(dimension, line, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ConfigError(
            f"faiss cannot make {line!r} of {dimension} dimensions: {_reason(error)}"
        ) from error
    core = _core(engine)
    if hasattr(core, "hnsw"):
        core.hnsw.efConstruction = 200
    return engine


def _reason(error: RuntimeError) -> str:
    """Return what faiss says, without the place in its source."""
    return str(error).rpartition("Error: ")[2].strip()


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
