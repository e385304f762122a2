"""Metrics over a table of grades: fast where many rankings of the same queries are measured."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from retrodistill.base.errors import ConfigError
from retrodistill.data.rankings.metrics import Metric
from retrodistill.data.rankings.segments import Floats

Judged = Sequence[Sequence[int]]
"""The grades of each query's judged documents."""

TableMetric = Callable[[Floats], Floats]
"""From grades by rank, (queries, documents), to a value for each query."""


def table_metric(metric: Metric, judged: Judged) -> TableMetric:
    """Return a function from grades in ranked order to the metric of each query.

    Its values are those of `metrics.evaluate`. Documents without judgement and padding have
    grade 0.

    Raises:
        ConfigError: the measure needs more than a table of grades.

    """
    if metric.name not in FORMS:
        raise ConfigError(
            f"weights cannot be tuned for {metric}. Take one of {', '.join(FORMS)}, with a cutoff."
        )
    relevant = np.array([sum(grade >= metric.rel for grade in grades) for grades in judged])
    # the best order of the judged documents, padded with 0: (queries, documents)
    best = np.zeros((len(judged), max(map(len, judged), default=0)))
    for row, grades in zip(best, judged, strict=True):
        row[: len(grades)] = sorted(grades, reverse=True)
    form, cut = FORMS[metric.name], metric.cutoff
    return lambda grades: form(metric, grades[:, :cut], best[:, :cut], np.maximum(relevant, 1))


def _dcg(grades: Floats, *, burges: bool) -> Floats:
    grades = np.maximum(grades, 0)
    gains = 2**grades - 1 if burges else grades
    return gains @ (1 / np.log2(np.arange(2, grades.shape[1] + 2)))


def _ndcg(metric: Metric, grades: Floats, best: Floats, _: Floats) -> Floats:
    burges = metric.name == "ndcg_burges"
    ideal = _dcg(best, burges=burges)
    return _dcg(grades, burges=burges) / np.where(ideal > 0, ideal, 1)


def _reciprocal(metric: Metric, grades: Floats, *_: Floats) -> Floats:
    hits = grades >= metric.rel
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)


def _average_precision(metric: Metric, grades: Floats, _: Floats, relevant: Floats) -> Floats:
    hits = grades >= metric.rel
    precisions = hits.cumsum(axis=1) / np.arange(1, grades.shape[1] + 1)
    sums: Floats = (precisions * hits).sum(axis=1)
    return sums / relevant


def _recall(metric: Metric, grades: Floats, _: Floats, relevant: Floats) -> Floats:
    recall: Floats = (grades >= metric.rel).sum(axis=1) / relevant
    return recall


def _hit_rate(metric: Metric, grades: Floats, *_: Floats) -> Floats:
    return np.where((grades >= metric.rel).any(axis=1), 1.0, 0.0)


def _rank_biased_precision(metric: Metric, grades: Floats, *_: Floats) -> Floats:
    weights = (1 - metric.p) * metric.p ** np.arange(grades.shape[1])
    values: Floats = np.where(grades >= metric.rel, 1.0, 0.0) @ weights
    return values


FORMS: Mapping[str, Callable[[Metric, Floats, Floats, Floats], Floats]] = {
    "ndcg": _ndcg,
    "ndcg_burges": _ndcg,
    "mrr": _reciprocal,
    "map": _average_precision,
    "recall": _recall,
    "hit_rate": _hit_rate,
    "rbp": _rank_biased_precision,
}
"""Measure -> function of: the metric, grades by rank, ideal grades by rank, number of relevant."""
