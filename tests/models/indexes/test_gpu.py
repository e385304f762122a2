"""FAISS on a GPU: by a stand-in here, and on a real one with `-m gpu`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import faiss
import numpy as np
import pytest
from fakes.gpu_faiss import Library
from numpy.typing import NDArray

from retrodistill import embed, search
from retrodistill.base.config import IndexSettings
from retrodistill.base.errors import ConfigError, MissingExtra
from retrodistill.models.indexes import gpu, new_index, use_device
from retrodistill.models.indexes.cagra import CagraIndex
from retrodistill.models.indexes.faiss import FaissIndex

KINDS = ("flat", "ivf", "ivf-pq", "cagra")


def near_vectors(count: int, dimension: int = 32, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((40, dimension))
    own = centres[generator.integers(0, 40, count)]
    vectors = own + 0.7 * generator.standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(kind: str, vectors: NDArray[np.float32], device: str = "cuda") -> FaissIndex:
    index = new_index(kind, vectors.shape[1])
    use_device(index, device)  # type: ignore[arg-type]
    assert isinstance(index, FaissIndex)
    index.add([f"d{row}" for row in range(len(vectors))], vectors)
    return index


def shared(found: list[list[str]], wanted: list[list[str]]) -> float:
    same = sum(len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True))
    return same / sum(map(len, wanted))


@pytest.fixture(name="library")
def _library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    library = Library()
    monkeypatch.setattr(gpu, "_gpu_faiss", lambda: library)
    return library


@pytest.mark.parametrize("kind", KINDS)
def test_finds_what_the_exact_index_finds(kind: str, library: Library) -> None:
    """A copy of another state of the index, or one that is never asked."""
    vectors, queries = near_vectors(1500), near_vectors(600, seed=1)
    index = filled(kind, vectors)
    wanted = filled("flat", vectors, "cpu").search(queries, 10)
    found = index.search(queries, 10)
    assert shared(found[0], wanted[0]) >= 0.95
    if kind == "cagra":
        assert isinstance(index, CagraIndex)
        assert index.has_graph
    else:
        assert library.copies[-1].batches == [256, 256, 88]
    assert library.clustered == (kind in ("ivf", "ivf-pq"))
    # What is added later is found, by a new copy or by comparing all.
    index.add(["new"], queries[:1])
    assert index.search(queries[:1], 1)[0] == [["new"]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_gpu_cannot_search_is_searched_on_the_cpu(
    kind: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error at the 2,049th result, or deleted documents that come back."""
    monkeypatch.setattr("retrodistill.models.indexes.faiss.LIMIT", 1000)
    vectors, queries = near_vectors(1500), near_vectors(20, seed=1)
    index = filled(kind, vectors)
    best = index.search(queries, 1)[0]
    asked = [len(copy.batches) for copy in library.copies]
    assert {len(row) for row in index.search(queries, 1400)[0]} == {1400}
    gone = {row[0] for row in best}
    index.delete(gone)
    after = index.search(queries, 50)[0]
    assert not gone.intersection(*after)
    assert {len(row) for row in after} == {50}
    assert asked == [len(copy.batches) for copy in library.copies]


@pytest.mark.parametrize("kind", KINDS)
def test_few_vectors_stay_on_the_cpu(kind: str, library: Library) -> None:
    """A transfer of three vectors, which hangs for ever."""
    index = filled(kind, near_vectors(3))
    assert len(index.search(near_vectors(1), 3)[0][0]) == 3
    assert library.copies == []


def test_a_graph_is_served_without_a_gpu(library: Library, tmp_path: Path) -> None:
    """A graph that only the machine that built it can search, or that is lost when it is saved."""
    vectors, queries = near_vectors(1500), near_vectors(50, seed=1)
    filled("cagra", vectors).save(tmp_path)
    index = CagraIndex.load(tmp_path)
    assert index.gpu is None
    assert index.has_graph
    assert index._engine.base_level_only
    assert {"ef_search"} == set(index.efforts[0])
    wanted = filled("flat", vectors, "cpu").search(queries, 10)
    assert shared(index.search(queries, 10)[0], wanted[0]) >= 0.95
    index.effort = index.effort | {"ef_search": 1}
    few = shared(index.search(queries, 10)[0], wanted[0])
    index.effort = index.effort | {"ef_search": 512}
    assert few <= shared(index.search(queries, 10)[0], wanted[0])
    # Without a GPU an added document makes every search exact until it is built again.
    index.add(["new"], queries[:1])
    assert not index.has_graph
    assert index.search(queries, 10)[0][1:] == wanted[0][1:]
    np.testing.assert_allclose(index.vectors_of(["d7"]), vectors[7:8], atol=1e-6)


def test_codes_that_a_gpu_can_search(library: Library) -> None:
    """Codes of four bits, which no GPU takes: a copy that is refused after all was encoded."""
    assert [gpu.code_bytes(size) for size in (384, 768, 1024, 64, 6)] == [48, 96, 64, 8, 1]
    vectors = near_vectors(1500)
    index = filled("ivf-pq", vectors, "cpu")
    index.use_gpu()
    assert len(index.search(vectors[:5], 3)[0]) == 5
    assert library.copies == []
    assert isinstance(faiss.downcast_index(index._engine), faiss.IndexRefine)


def test_the_installed_faiss_knows_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An AttributeError of a library after hours of encoding."""
    if not hasattr(faiss, "StandardGpuResources"):
        with pytest.raises(MissingExtra, match=r"pip uninstall faiss-cpu.*retrodistill\[gpu\]"):
            filled("flat", near_vectors(3))
    module = ModuleType("faiss")
    module.__dict__.update(StandardGpuResources=object, get_num_gpus=lambda: 0)
    monkeypatch.setitem(sys.modules, "faiss", module)
    with pytest.raises(ConfigError, match="faiss sees no GPU here"):
        gpu.Gpu()
    module.__dict__.update(get_num_gpus=lambda: 1)
    with pytest.raises(MissingExtra, match="faiss-gpu-cuvs"):
        gpu.Gpu().graph(near_vectors(3))


def test_devices_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that does nothing, or a cagra index without a graph."""
    with pytest.raises(ConfigError, match="--index cagra is built on a GPU"):
        IndexSettings(index="cagra")
    with pytest.raises(ConfigError, match=r"kinds flat, .*but this one is HNSWIndex"):
        use_device(new_index("hnsw", 4), "cuda")
    with pytest.raises(ConfigError, match="kinds flat"):
        use_device(new_index("exact", 4), "cuda")
    words = ["--data", "builtin:pydocs", "--model", "packaged:all-MiniLM-L6-v2"]
    assert search.main(["x", *words, "--device", "cuda"]) == 2
    assert "--device needs --index" in capsys.readouterr().err
    assert embed.main([*words, "--out", str(tmp_path / "i"), "--index", "cagra"]) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(kind: str, tmp_path: Path) -> None:
    """That what the stand-in promises holds: recall, limits, and serving without the GPU."""
    vectors, queries = near_vectors(20_000), near_vectors(600, seed=1)
    wanted = filled("flat", vectors, "cpu").search(queries, 10)[0]
    index = filled(kind, vectors)
    assert shared(index.search(queries, 10)[0], wanted) >= 0.95
    assert {len(row) for row in index.search(queries[:2], 1400)[0]} == {1400}
    index.save(tmp_path)
    loaded = type(index).load(tmp_path)
    assert shared(loaded.search(queries, 10)[0], wanted) >= 0.95
