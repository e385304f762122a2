"""Lines of the benchmarks that measure quality: a system on all queries, and on unseen ones.

`lines` gives one JSON object a system and row of queries: all, those with no near double in
training, those whose relevant documents training has not seen. In each, `p` is the paired test of
the first metric against the system `against`, and `p_holm` the same corrected over all pairs.
With several seeds a query's value is the mean over them, and `spread` the standard deviation of the
seeds' means. `tables.py` makes Markdown of these lines.
"""

import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.stages.evaluation import Evaluation, average_systems

METRICS = "ndcg@10,mrr@10,recall@100"
ALL = "all"
UNTESTED = rd.EvaluationSettings(test="none")


def kept(folder: Path, name: str, make: Callable[[], rd.Run]) -> rd.Run:
    """Return the run of this name in a folder, made unless it is there."""
    if not (folder / name).exists():
        make().write(folder / name)
    return rd.Run.read(folder / name)


def measure(
    collection: rd.Collection,
    systems: Mapping[str, Sequence[rd.Run]],
    *,
    split: str = "test",
    metrics: str = METRICS,
    trained_on: Sequence[str] = (),
) -> tuple[Evaluation, Evaluation]:
    """Return systems measured seed by seed, and as means over their seeds."""
    groups = {name: [f"{name} #{n}" for n, _ in enumerate(runs)] for name, runs in systems.items()}
    runs = {
        one: run
        for name, own in systems.items()
        for one, run in zip(groups[name], own, strict=True)
    }
    qrels = collection.qrels(split)
    seen = rd.seen_in_training(collection, qrels, runs, trained_on=trained_on)
    single = rd.evaluate_runs(qrels, runs, metrics=metrics, settings=UNTESTED, seen=seen)
    return single, average_systems(single, groups, test="t")


def lines(
    collection: rd.Collection,
    systems: Mapping[str, Sequence[rd.Run]],
    *,
    against: str | Mapping[str, str],
    split: str = "test",
    metrics: str = METRICS,
    trained_on: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yield a line for each row of queries and system.

    `systems` is name -> a run for each seed, `against` the system that all, or each by its name,
    are compared with. `trained_on` are splits that count as seen beside what the runs record.
    """
    single, means = measure(
        collection, systems, split=split, metrics=metrics, trained_on=trained_on
    )
    metric = next(iter(next(iter(single.per_query.values()))))
    for title in (ALL, *means.subsets):
        part, seeds = (own if title == ALL else own.subsets[title] for own in (means, single))
        tests = {frozenset((test.a, test.b)): test for test in part.tests if test.metric == metric}
        for name, values in part.systems.items():
            line = {"system": name, "queries": title, "number": part.settings["queries"]}
            line |= {key: round(value, 4) for key, value in values.items()}
            count = len(systems[name])
            if count > 1:
                each = [seeds.systems[f"{name} #{n}"][metric] for n in range(count)]
                line["spread"] = round(statistics.stdev(each), 4)
            other = against if isinstance(against, str) else against[name]
            test = tests.get(frozenset((name, other)))
            if test is not None:
                line |= {"against": other, "p": test.p, "p_holm": test.p_corrected}
            yield line | {"seeds": count}


def machine() -> dict[str, Any]:
    """Return what computed, for every line."""
    name = platform.processor() or platform.machine()
    return {"machine": name, "threads": torch.get_num_threads(), **library_versions()}
