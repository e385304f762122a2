"""Evaluation: runs against judgements, system beside system."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.metrics import (
    Metric,
    PerQuery,
    evaluate,
    parse_metric,
    parse_metrics,
)
from retrodistill.data.rankings.unseen import THRESHOLD
from retrodistill.stages.evaluation.seen import Seen, seen_in_training, warnings_of
from retrodistill.stages.evaluation.significance import (
    LEVEL,
    TIE,
    Comparison,
    Correction,
    Interval,
    Test,
    check_baseline,
    compare,
    interval,
    resampled_means,
)

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run

__all__ = ["METRICS", "Evaluation", "average_systems", "evaluate_runs", "evaluate_with_unseen"]

METRICS = "ndcg@10,mrr@10,map,recall@100"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured of each system."""

    per_query: Mapping[str, PerQuery]
    """System -> metric -> query id -> value."""

    tests: Sequence[Comparison]

    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """System -> metric -> bootstrap interval of the mean."""

    judged: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """System -> judged@cutoff -> share of the listed documents that have a judgement, for the
    metrics' cutoffs; the mean over the judged queries that the run lists documents for."""

    identical_ids: Mapping[str, int] = field(default_factory=dict)
    """System -> rows, of judged queries, whose document has the query's own id."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was measured and tested."""

    subsets: Mapping[str, "Evaluation"] = field(default_factory=dict)
    """Name -> the same on the queries that training has not seen; nothing is measured of none."""

    training: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the training behind the systems, as `Seen.to_dict` has it."""

    @property
    def warnings(self) -> list[str]:
        """Return a sentence for each gain that is much another one on a subset."""
        return warnings_of(self)

    @property
    def systems(self) -> dict[str, dict[str, float]]:
        """System -> metric -> mean over all judged queries."""
        return {
            name: {metric: sum(row.values()) / len(row) for metric, row in values.items()}
            for name, values in self.per_query.items()
        }

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """Return the form of `--json`: systems with their metrics, the tests, and the settings."""
        systems: list[dict[str, Any]] = []
        for name, means in self.systems.items():
            known = {
                "intervals": {m: list(ends) for m, ends in self.intervals.get(name, {}).items()},
                "judged": dict(self.judged.get(name, {})),
                "identical_ids": self.identical_ids.get(name, 0),
            }
            systems.append({"name": name, "metrics": means, **known})
            if per_query:
                systems[-1]["per_query"] = self.per_query[name]
        tests = [asdict(row) | {"interval": list(row.interval)} for row in self.tests]
        whole = {"systems": systems, "tests": tests, "settings": dict(self.settings)}
        if not self.training:
            return whole
        subsets = [
            {"name": name, **subset.to_dict(per_query=per_query)}
            for name, subset in self.subsets.items()
        ]
        return whole | {
            "subsets": subsets,
            "training": dict(self.training),
            "warnings": self.warnings,
        }

    def write(self, path: Path, *, per_query: bool = False) -> None:
        """Write `to_dict` as a JSON file, whole or not at all."""
        text = json.dumps(self.to_dict(per_query=per_query), indent=2)
        write_atomically(path, (text + "\n").encode())


def evaluate_runs(
    qrels: Qrels,
    runs: "Mapping[str, Run]",
    *,
    metrics: str | Sequence[str] = METRICS,
    test: Test = "t",
    correction: Correction = "holm",
    baseline: str | None = None,
    tie: float = TIE,
    ignore_identical_ids: bool = False,
    judged_only: bool = False,
    seed: int = 0,
    seen: Seen | None = None,
) -> Evaluation:
    """Measure each run on every judged query, and test each pair of runs.

    Args:
        qrels: the judgements.
        runs: name -> run.
        metrics: comma-separated or one by one, as `parse_metric` reads them.
        test: the paired test of two runs.
        correction: of its p for the number of pairs.
        baseline: compare every other run with this one only.
        tie: values of a query that differ by at most this are equal when wins are counted.
        ignore_identical_ids: drop documents that have the query's own id, as BEIR does where
            queries are documents of the corpus.
        judged_only: drop documents without a judgement before measuring.
        seed: of the bootstrap and of the randomised tests.
        seen: what training has not seen, for the same on these queries: `seen_in_training`.

    Raises:
        ConfigError: a metric, a test or the baseline is unknown.
        DataError: there are no judgements, or a run shares no query with them.

    """
    wanted = parse_metrics(metrics)
    if baseline is not None:
        check_baseline(baseline, [*runs])
    judged = [query for query, docs in qrels.items() if docs]
    if not judged:
        raise DataError("there are no judgements, so there is nothing to measure against.")
    for name, run in runs.items():
        found = run.query_ids
        if not set(judged).intersection(found):
            raise DataError(
                f"run {name!r} shares no query with the judgements: it has ids like {found[:3]}, "
                f"they have ids like {judged[:3]}. Check --split, or the file that was given."
            )
    shares = _judged_at(wanted)
    asked = {str(metric): metric for metric in (*wanted, *shares)}
    identical, per_query, shown = {}, {}, {}
    for name, run in runs.items():
        run, identical[name] = _without_own_ids(run, judged, drop=ignore_identical_ids)
        values = evaluate(qrels, run, [*asked.values()], judged_only=judged_only)
        per_query[name] = {str(metric): values[str(metric)] for metric in wanted}
        shown[name] = _shares(values, shares, run.query_ids)
    settings = {
        "queries": len(judged),
        "ignore_identical_ids": ignore_identical_ids,
        "judged_only": judged_only,
        "test": test,
        "correction": correction,
        "baseline": baseline,
        "tie": tie,
        "confidence": LEVEL,
        "seed": seed,
    }
    whole = _tested(per_query, settings)
    subsets = (
        {}
        if seen is None
        else {name: _restricted(whole, queries) for name, queries in seen.subsets.items()}
    )
    return replace(
        whole,
        judged=shown,
        identical_ids=identical,
        subsets=subsets,
        training={} if seen is None else seen.to_dict(),
    )


def average_systems(
    evaluation: Evaluation, groups: Mapping[str, Sequence[str]], *, test: Test | None = None
) -> Evaluation:
    """Return the evaluation of groups of systems, such as the seeds of one: the means of members.

    Each query's value is the mean of its group's; tests and intervals are made of these. `test`
    is the paired test (default: that of the evaluation); a baseline must be a group's name.

    Raises:
        ConfigError: no group is called as the baseline, or the test is unknown.

    """
    settings = {**evaluation.settings, "test": test or evaluation.settings["test"]}
    per_query = {
        group: {
            metric: {
                query: sum(evaluation.per_query[name][metric][query] for name in names) / len(names)
                for query in row
            }
            for metric, row in evaluation.per_query[names[0]].items()
        }
        for group, names in groups.items()
    }
    whole = _tested(per_query, settings)
    subsets = {
        title: _restricted(whole, [*_queries(subset)])
        for title, subset in evaluation.subsets.items()
    }
    untrained = set(evaluation.training.get("untrained", ()))
    training = evaluation.training and {
        **evaluation.training,
        "untrained": [group for group, names in groups.items() if untrained.issuperset(names)],
    }
    return replace(whole, subsets=subsets, training=training)


def _queries(evaluation: Evaluation) -> Iterable[str]:
    """Return the queries that were measured."""
    for values in evaluation.per_query.values():
        return next(iter(values.values()))
    return ()


def _tested(per_query: Mapping[str, PerQuery], settings: Mapping[str, Any]) -> Evaluation:
    """Return values with their intervals and tests."""
    means = resampled_means(
        {(name, metric): row for name, own in per_query.items() for metric, row in own.items()},
        seed=settings["seed"],
    )
    intervals = {
        name: {metric: interval(means[name, metric]) for metric in own}
        for name, own in per_query.items()
    }
    asked = {key: settings[key] for key in ("test", "correction", "baseline", "tie", "seed")}
    tests = [
        row
        for metric in next(iter(per_query.values()))
        for row in compare(
            metric,
            {name: own[metric] for name, own in per_query.items()},
            means={name: means[name, metric] for name in per_query},
            **asked,
        )
    ]
    return Evaluation(per_query, tests, intervals, settings=settings)


def _restricted(whole: Evaluation, queries: Sequence[str]) -> Evaluation:
    """Return the evaluation of some of the queries; of none, nothing is measured."""
    settings = {**whole.settings, "queries": len(queries)}
    if not queries:
        return Evaluation({}, [], settings=settings)
    per_query = {
        name: {metric: {query: row[query] for query in queries} for metric, row in own.items()}
        for name, own in whole.per_query.items()
    }
    return _tested(per_query, settings)


def evaluate_with_unseen(
    collection: "Collection | None",
    qrels: Qrels,
    runs: "Mapping[str, Run]",
    *,
    trained_on: Sequence[str] = (),
    near_double: float = THRESHOLD,
    **measuring: Any,
) -> Evaluation:
    """Measure as `evaluate_runs` does, and the same on the queries that training has not seen.

    `trained_on` and `near_double` are those of `seen_in_training`, `measuring` the settings of
    `evaluate_runs`.
    """
    seen = seen_in_training(collection, qrels, runs, trained_on=trained_on, threshold=near_double)
    return evaluate_runs(qrels, runs, seen=seen, **measuring)


def _judged_at(metrics: Sequence[Metric]) -> list[Metric]:
    """Return the shares of judged documents at the metrics' cutoffs, or of all if none has one."""
    cutoffs = sorted({metric.cutoff for metric in metrics if metric.cutoff})
    return [parse_metric(f"judged@{cutoff}") for cutoff in cutoffs] or [parse_metric("judged")]


def _shares(
    values: PerQuery, metrics: Sequence[Metric], query_ids: Iterable[str]
) -> dict[str, float]:
    """Return the mean of each metric over the queries of a run."""
    rows = {str(metric): values[str(metric)] for metric in metrics}
    known = [query for query in query_ids if query in next(iter(rows.values()))]
    return {
        name: sum(row[query] for query in known) / max(1, len(known)) for name, row in rows.items()
    }


def _without_own_ids(run: "Run", judged: Sequence[str], *, drop: bool) -> "tuple[Run, int]":
    """Return the run, and how many rows of judged queries have the query's id as the document's.

    With `drop`, they are not in the run that is returned.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    same = pc.equal(run.table["query_id"], run.table["doc_id"])
    found = run.table["query_id"].filter(same)
    count = pc.sum(pc.is_in(found, value_set=pa.array(judged, pa.string()))).as_py() or 0
    return (replace(run, table=run.table.filter(pc.invert(same))) if drop else run), count
