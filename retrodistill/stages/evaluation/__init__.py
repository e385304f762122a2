"""Evaluation: runs measured against judgements, and compared by paired tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config.evaluate import EvaluationSettings
from retrodistill.base.errors import DataError
from retrodistill.base.files import json_text, write_atomically
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.metrics import (
    Metric,
    PerQuery,
    evaluate,
    parse_metric,
    parse_metrics,
)
from retrodistill.stages.evaluation.seen import Seen, seen_in_training, warnings_of
from retrodistill.stages.evaluation.significance import (
    LEVEL,
    Comparison,
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

DEFAULTS = EvaluationSettings()
METRICS = DEFAULTS.metrics


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of each system, and the tests between systems."""

    per_query: Mapping[str, PerQuery]
    """System -> metric -> query id -> value."""

    tests: Sequence[Comparison]

    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """System -> metric -> bootstrap interval of the mean."""

    judged: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """System -> judged@cutoff -> share of the listed documents that have a judgement, for the
    metrics' cutoffs; the mean over the judged queries that the run lists documents for."""

    identical_ids: Mapping[str, int] = field(default_factory=dict)
    """System -> number of rows of judged queries whose document has the query's id."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was measured and tested."""

    subsets: Mapping[str, "Evaluation"] = field(default_factory=dict)
    """Name -> the evaluation on the queries that training has not seen; may be without a query."""

    training: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the training behind the systems: `Seen.to_dict`."""

    @property
    def warnings(self) -> list[str]:
        """Return a sentence for each gain that differs much on a subset."""
        return warnings_of(self)

    def with_caution(self, caution: str) -> "Evaluation":
        """Return this evaluation with what a reader must know of its judgements, if anything."""
        return replace(self, settings={**self.settings, "caution": caution}) if caution else self

    @property
    def systems(self) -> dict[str, dict[str, float]]:
        """System -> metric -> mean over all judged queries."""
        return {
            name: {metric: sum(values.values()) / len(values) for metric, values in metrics.items()}
            for name, metrics in self.per_query.items()
        }

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """Return the form of `--json`: systems with their metrics, the tests, and the settings."""
        systems: list[dict[str, Any]] = []
        for name, means in self.systems.items():
            intervals = self.intervals.get(name, {})
            system = {
                "name": name,
                "metrics": means,
                "intervals": {metric: list(ends) for metric, ends in intervals.items()},
                "judged": dict(self.judged.get(name, {})),
                "identical_ids": self.identical_ids.get(name, 0),
            }
            systems.append(system | ({"per_query": self.per_query[name]} if per_query else {}))
        tests = [asdict(test) | {"interval": list(test.interval)} for test in self.tests]
        plain = {"systems": systems, "tests": tests, "settings": dict(self.settings)}
        if not self.training:
            return plain
        subsets = [
            {"name": name, **subset.to_dict(per_query=per_query)}
            for name, subset in self.subsets.items()
        ]
        return plain | {
            "subsets": subsets,
            "training": dict(self.training),
            "warnings": self.warnings,
        }

    def write(self, path: Path, *, per_query: bool = False) -> None:
        """Write `to_dict` as a JSON file, atomically."""
        write_atomically(path, json_text(self.to_dict(per_query=per_query)).encode())


def evaluate_runs(
    qrels: Qrels,
    runs: "Mapping[str, Run]",
    settings: EvaluationSettings = DEFAULTS,
    *,
    metrics: str | Sequence[str] | None = None,
    seen: Seen | None = None,
) -> Evaluation:
    """Measure each run on every judged query, and test each pair of runs.

    Args:
        qrels: the judgements.
        runs: name -> run.
        settings: how runs are measured and compared.
        metrics: comma-separated or one by one, as `parse_metric` reads them; instead of those of
            the settings.
        seen: `seen_in_training`, to measure also the queries that training has not seen.

    Raises:
        ConfigError: a metric, a test or the baseline is unknown.
        DataError: there are no judgements, or a run shares no query with them.

    """
    requested = parse_metrics(settings.metrics if metrics is None else metrics)
    if settings.baseline is not None:
        check_baseline(settings.baseline, [*runs])
    judged = [query for query, docs in qrels.items() if docs]
    _check_queries(judged, runs)
    # metrics and shares of judged documents, run by run
    shares = _judged_at(requested)
    all_metrics = {str(metric): metric for metric in (*requested, *shares)}
    identical, per_query, judged_shares = {}, {}, {}
    for name, run in runs.items():
        run, identical[name] = _without_identical_ids(
            run, judged, drop=settings.ignore_identical_ids
        )
        values = evaluate(qrels, run, [*all_metrics.values()], judged_only=settings.judged_only)
        per_query[name] = {str(metric): values[str(metric)] for metric in requested}
        judged_shares[name] = _shares(values, shares, run.query_ids)
    # intervals and tests, on all queries and on those unseen in training
    how = {
        "queries": len(judged),
        "ignore_identical_ids": settings.ignore_identical_ids,
        "judged_only": settings.judged_only,
        "test": settings.test,
        "correction": settings.correction,
        "baseline": settings.baseline,
        "tie": settings.tie,
        "confidence": LEVEL,
        "seed": settings.seed,
    }
    evaluation = replace(_tested(per_query, how), judged=judged_shares, identical_ids=identical)
    if seen is None:
        return evaluation
    subsets = {name: _restricted(evaluation, queries) for name, queries in seen.subsets.items()}
    return replace(evaluation, subsets=subsets, training=seen.to_dict())


def average_systems(
    evaluation: Evaluation, groups: Mapping[str, Sequence[str]], *, test: Test | None = None
) -> Evaluation:
    """Return the evaluation of groups of systems, such as the seeds of one: the means of members.

    Each query's value is the mean of its group's; tests and intervals are computed from these.
    `test` is the paired test (default: that of the evaluation); a baseline must be a group's name.

    Raises:
        ConfigError: the baseline is not a group, or the test is unknown.

    """
    settings = {**evaluation.settings, "test": test or evaluation.settings["test"]}
    per_query = {
        group: {
            metric: {
                query: sum(evaluation.per_query[name][metric][query] for name in names) / len(names)
                for query in values
            }
            for metric, values in evaluation.per_query[names[0]].items()
        }
        for group, names in groups.items()
    }
    averaged = _tested(per_query, settings)
    subsets = {
        title: _restricted(averaged, [*_queries(subset)])
        for title, subset in evaluation.subsets.items()
    }
    untrained = set(evaluation.training.get("untrained", ()))
    training = evaluation.training and {
        **evaluation.training,
        "untrained": [group for group, names in groups.items() if untrained.issuperset(names)],
    }
    return replace(averaged, subsets=subsets, training=training)


def evaluate_with_unseen(
    collection: "Collection | None",
    qrels: Qrels,
    runs: "Mapping[str, Run]",
    settings: EvaluationSettings = DEFAULTS,
    *,
    metrics: str | Sequence[str] | None = None,
) -> Evaluation:
    """Measure as `evaluate_runs` does, and the same on the queries that training has not seen."""
    seen = seen_in_training(
        collection,
        qrels,
        runs,
        trained_on=settings.trained_on,
        threshold=settings.near_double,
    )
    return evaluate_runs(qrels, runs, settings, metrics=metrics, seen=seen)


def _check_queries(judged: Sequence[str], runs: "Mapping[str, Run]") -> None:
    """Raise DataError if there is no judged query, or a run has none of them."""
    if not judged:
        raise DataError("there are no judgements, so there is nothing to measure against.")
    for name, run in runs.items():
        if set(judged).isdisjoint(run.query_ids):
            raise DataError(
                f"run {name!r} shares no query with the judgements: it has ids like "
                f"{run.query_ids[:3]}, they have ids like {judged[:3]}. Check --split, or the file "
                "of the judgements."
            )


def _queries(evaluation: Evaluation) -> Iterable[str]:
    """Return the queries that were measured."""
    for values in evaluation.per_query.values():
        return next(iter(values.values()))
    return ()


def _tested(per_query: Mapping[str, PerQuery], settings: Mapping[str, Any]) -> Evaluation:
    """Return values with their intervals and tests."""
    means = resampled_means(
        {
            (name, metric): values
            for name, by_metric in per_query.items()
            for metric, values in by_metric.items()
        },
        seed=settings["seed"],
    )
    intervals = {
        name: {metric: interval(means[name, metric]) for metric in by_metric}
        for name, by_metric in per_query.items()
    }
    testing = {key: settings[key] for key in ("test", "correction", "baseline", "tie", "seed")}
    tests = [
        comparison
        for metric in next(iter(per_query.values()))
        for comparison in compare(
            metric,
            {name: by_metric[metric] for name, by_metric in per_query.items()},
            means={name: means[name, metric] for name in per_query},
            **testing,
        )
    ]
    return Evaluation(per_query, tests, intervals, settings=settings)


def _restricted(evaluation: Evaluation, queries: Sequence[str]) -> Evaluation:
    """Return the evaluation of some of the queries; without a query, nothing is measured."""
    settings = {**evaluation.settings, "queries": len(queries)}
    if not queries:
        return Evaluation({}, [], settings=settings)
    per_query = {
        name: {
            metric: {query: values[query] for query in queries}
            for metric, values in by_metric.items()
        }
        for name, by_metric in evaluation.per_query.items()
    }
    return _tested(per_query, settings)


def _judged_at(metrics: Sequence[Metric]) -> list[Metric]:
    """Return judged@K at the metrics' cutoffs, or of whole lists if no metric has a cutoff."""
    cutoffs = sorted({metric.cutoff for metric in metrics if metric.cutoff})
    return [parse_metric(f"judged@{cutoff}") for cutoff in cutoffs] or [parse_metric("judged")]


def _shares(
    values: PerQuery, metrics: Sequence[Metric], query_ids: Iterable[str]
) -> dict[str, float]:
    """Return the mean of each metric over the judged queries of a run."""
    by_metric = {str(metric): values[str(metric)] for metric in metrics}
    judged = [query for query in query_ids if query in next(iter(by_metric.values()))]
    return {
        name: sum(by_query[query] for query in judged) / max(1, len(judged))
        for name, by_query in by_metric.items()
    }


def _without_identical_ids(run: "Run", judged: Sequence[str], *, drop: bool) -> "tuple[Run, int]":
    """Return the run, and how many rows of judged queries have the query's id as the document's.

    With `drop`, the returned run lacks them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    is_identical = pc.equal(run.table["query_id"], run.table["doc_id"])
    query_ids = run.table["query_id"].filter(is_identical)
    count = pc.sum(pc.is_in(query_ids, value_set=pa.array(judged, pa.string()))).as_py() or 0
    if drop:
        run = replace(run, table=run.table.filter(pc.invert(is_identical)))
    return run, count
