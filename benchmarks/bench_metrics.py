"""Seconds of an evaluation: this package against pytrec_eval, on the same synthetic run.

    python benchmarks/bench_metrics.py > benchmarks/results/metrics_MACHINE_YYYYMM.jsonl

Per size: a run of QUERIES x DEPTH documents with random scores and judgements of JUDGED documents
for each query, grades 0 to 3, half of them of listed documents, drawn with seed 0. Both measure
METRICS from what they take: we from a `Run`, pytrec_eval from dicts, whose making is not counted
(`dicts_s` tells it). They take turns, ROUNDS times after a first one that is thrown away; medians
are told. `join_s` is our time to number the documents and hand them over, `measure_s` that of
ranx; `report_s` is `evaluate_runs` of one run, with its bootstrap intervals. Values must be equal.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytrec_eval

from retrodistill.base.config import EvaluationSettings
from retrodistill.base.manifest import library_versions
from retrodistill.data.rankings import metrics
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation import evaluate_runs

UNTESTED = EvaluationSettings(test="none")

SIZES = ((300, 100), (7_000, 100), (7_000, 1_000))
JUDGED, CORPUS, ROUNDS = 40, 500_000, 5
METRICS = {
    "ndcg@10": ("ndcg_cut.10", "ndcg_cut_10"),
    "mrr": ("recip_rank", "recip_rank"),
    "map": ("map", "map"),
    "recall@100": ("recall.100", "recall_100"),
}


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took, and what it gave."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def drawn(queries: int, depth: int) -> tuple[dict[str, dict[str, int]], Run]:
    """Return judgements and a run."""
    rng = np.random.default_rng(0)
    listed = np.stack([rng.choice(CORPUS, depth, replace=False) for _ in range(queries)])
    ids = pa.array([f"doc{number:07d}" for number in range(CORPUS)])
    query_ids = pa.array([f"q{number}" for number in range(queries)])
    run = Run.from_columns(
        query_ids.take(pa.array(np.repeat(np.arange(queries), depth))),
        ids.take(pa.array(listed.reshape(-1))),
        rng.random(listed.size, np.float32),
    )
    qrels = {}
    for query, own in zip(query_ids.to_pylist(), listed, strict=True):
        found = rng.choice(own, JUDGED // 2, replace=False)
        judged = np.concatenate([found, rng.integers(0, CORPUS, JUDGED - len(found))])
        grades = rng.integers(0, 4, len(judged)).tolist()
        qrels[query] = dict(zip(ids.take(pa.array(judged)).to_pylist(), grades, strict=True))
    return qrels, run


def measure(queries: int, depth: int) -> dict[str, Any]:
    """Return the row of one size."""
    qrels, run = drawn(queries, depth)
    wanted = metrics.parse_metrics([*METRICS])
    dicts_s, lists = seconds(run.to_dict)
    peer = pytrec_eval.RelevanceEvaluator(qrels, {asked for asked, _ in METRICS.values()})

    def join() -> Any:
        found = metrics._Lists.of(qrels, run, [*qrels])
        return found.judgements, found.rankings

    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: metrics.evaluate(qrels, run, wanted),
        "pytrec_eval": lambda: peer.evaluate(lists),
        "join": join,
        "report": lambda: evaluate_runs(qrels, {"it": run}, metrics=[*METRICS], settings=UNTESTED),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(ROUNDS + 1):
        for name, call in ways.items():
            taken, found[name] = seconds(call)
            times[name].append(taken)
    middle = {name: statistics.median(own[1:]) for name, own in times.items()}
    rounds = zip(times["pytrec_eval"][1:], times["ours"][1:], strict=True)
    apart = max(
        abs(value - found["pytrec_eval"][query][theirs])
        for ours, (_, theirs) in METRICS.items()
        for query, value in found["ours"][ours].items()
    )
    assert apart < 1e-9, apart
    return {
        "queries": queries,
        "depth": depth,
        "judged": JUDGED,
        "metrics": [*METRICS],
        "ours_s": round(middle["ours"], 4),
        "pytrec_eval_s": round(middle["pytrec_eval"], 4),
        "ratio": round(statistics.median(theirs / ours for theirs, ours in rounds), 2),
        "join_s": round(middle["join"], 4),
        "measure_s": round(middle["ours"] - middle["join"], 4),
        "dicts_s": round(dicts_s, 4),
        "report_s": round(middle["report"], 4),
        "first_s": round(times["ours"][0], 3),
        "largest_difference": apart,
        "rounds": ROUNDS,
        "machine": platform.processor() or platform.machine(),
        **library_versions(),
    }


def main() -> None:
    """Measure each size."""
    for queries, depth in SIZES:
        print(json.dumps(measure(queries, depth)), flush=True)


if __name__ == "__main__":
    main()
