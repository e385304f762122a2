"""Batches of queries that each have a condition: all together, and in plain FAISS one by one.

    python benchmarks/bench_filters.py --data beir:../shared/data/medquad --size 100000 \\
        > benchmarks/results/filters_MACHINE_YYYYMM.jsonl

Vectors as in bench_index.py, with an attribute `part` from 0 to 9999, at random. BATCH queries
share CONDITIONS different conditions of one selectivity (`part >= a and part < b`). `plain` gives
FAISS each query alone with an IDSelectorBitmap made once a condition: flat, HNSW and IVF, the two
at the smallest effort that reaches recall RECALL on a sample; its throughput is that of the
sample. Ours are one call of `search`; `laid out` is the flat one whose vectors lie as the batch's
conditions suggest (`embed --workload`). All use all threads. Rounds alternate; a line is a
selectivity and a system: recall@10 on the sample, queries a second (median), and the ratio to the
fastest of plain FAISS that reaches RECALL.
"""

import argparse
import json
import statistics
import time
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from bench_index import add_vectors, encoded, filled
from numpy.typing import NDArray

from retrodistill.base.manifest import library_versions
from retrodistill.data.filters import Attributes, parse_where
from retrodistill.models.indexes.layout import arranged

K, BATCH, CONDITIONS, SAMPLE, ROUNDS, RECALL = 10, 10_000, 20, 200, 3, 0.99
SELECTIVITIES = (0.5, 0.2, 0.1, 0.05, 0.01, 0.001)
PARTS = 10_000
DOUBLED = [8 * 2**step for step in range(12)]
Vectors = NDArray[np.float32]


class Plain:
    """A FAISS index that is asked one query at a time."""

    def __init__(self, name: str, line: str, vectors: Vectors, knob: str) -> None:
        self.name, self.knob = name, knob
        self.index = faiss.index_factory(vectors.shape[1], line, faiss.METRIC_INNER_PRODUCT)
        if "HNSW" in line:
            self.index.hnsw.efConstruction = 200
        self.index.train(vectors[:: max(1, len(vectors) // 50_000)])
        self.index.add(vectors)

    def ask(self, queries: Vectors, selectors: list[Any], effort: int) -> NDArray[np.int64]:
        rows = np.empty((len(queries), K), np.int64)
        for place, (query, selector) in enumerate(zip(queries, selectors, strict=True)):
            if self.knob == "efSearch":
                parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
            elif self.knob == "nprobe":
                parameters = faiss.SearchParametersIVF(sel=selector, nprobe=effort)
            else:
                parameters = faiss.SearchParameters(sel=selector)
            rows[place] = self.index.search(query[None], K, params=parameters)[1][0]
        return rows


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the mean share of what is to be found; where nothing is, nothing is missed."""
    best = [set(row) - {-1} for row in truth.tolist()]
    pairs = zip(found.tolist(), best, strict=True)
    return float(np.mean([len(own & set(row)) / len(own) if own else 1.0 for row, own in pairs]))


def main() -> None:
    """Measure each selectivity, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_vectors(parser)
    options = parser.parse_args()
    vectors, asked = encoded(options, 1000)
    generator = np.random.default_rng(0)
    queries = asked[generator.integers(0, len(asked), BATCH)]
    queries = queries + generator.normal(0, 0.005, queries.shape).astype(np.float32)
    part = generator.integers(0, PARTS, len(vectors))
    ids = [str(row) for row in range(len(vectors))]
    table = pa.table({"part": part})
    indexes = {kind: filled(kind, ids, vectors, table) for kind in ("flat", "hnsw")}
    lists = int(4 * len(vectors) ** 0.5)
    plain = [
        Plain("faiss flat", "Flat", vectors, ""),
        Plain("faiss hnsw", "HNSW32", vectors, "efSearch"),
        Plain("faiss ivf", f"IVF{lists},Flat", vectors, "nprobe"),
    ]
    machine = {"vectors": len(vectors), "batch": BATCH, **library_versions()}
    for selectivity in SELECTIVITIES:
        width = round(selectivity * PARTS)
        starts = generator.integers(0, PARTS - width + 1, CONDITIONS)
        own = generator.integers(0, CONDITIONS, BATCH)
        conditions = [f"part >= {a} and part < {a + width}" for a in starts]
        workload = [parse_where(condition) for condition in conditions]
        order = arranged(Attributes.from_columns({"part": part}), workload)
        laid_out = filled("flat", [ids[row] for row in order], vectors[order], table.take(order))
        masks = [(part >= a) & (part < a + width) for a in starts]
        bits = [np.packbits(mask, bitorder="little") for mask in masks]
        selectors = [faiss.IDSelectorBitmap(packed) for packed in bits]
        sample, theirs = queries[:SAMPLE], [selectors[place] for place in own[:SAMPLE]]
        truth = plain[0].ask(sample, theirs, 0)
        efforts: dict[str, int] = {}
        for peer in plain:
            grid = {"efSearch": DOUBLED[3:], "nprobe": DOUBLED[:9]}
            for effort in grid.get(peer.knob, (0,)):
                if recall(peer.ask(sample, theirs, effort), truth) >= RECALL:
                    efforts[peer.name] = effort
                    break
        rates: dict[str, list[float]] = {}
        recalls: dict[str, float] = {}
        for _ in range(ROUNDS):
            for peer in plain:
                if peer.name in efforts:
                    began = time.perf_counter()
                    found = peer.ask(sample, theirs, efforts[peer.name])
                    took = time.perf_counter() - began
                    rates.setdefault(peer.name, []).append(SAMPLE / took)
                    recalls[peer.name] = recall(found, truth)
            for name, index in (indexes | {"laid out": laid_out}).items():
                began = time.perf_counter()
                found_ids, _ = index.search(queries, K, where=[conditions[place] for place in own])
                took = time.perf_counter() - began
                found = np.full((SAMPLE, K), -1)
                for place, one in enumerate(found_ids[:SAMPLE]):
                    found[place, : len(one)] = [int(row) for row in one]
                rates.setdefault(f"retrodistill {name}", []).append(BATCH / took)
                recalls[f"retrodistill {name}"] = recall(found, truth)
        fastest = max(statistics.median(rates[peer.name]) for peer in plain if peer.name in rates)
        for system, values in rates.items():
            rate = statistics.median(values)
            line = {
                "selectivity": selectivity,
                "system": system,
                "effort": efforts.get(system),
                f"recall@{K}": round(recalls[system], 4),
                "queries_per_second": round(rate, 1),
                "ratio_to_fastest_plain": round(rate / fastest, 2),
            }
            print(json.dumps(line | machine), flush=True)


if __name__ == "__main__":
    main()
