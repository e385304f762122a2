"""Normalisation: scores of several runs on one scale."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.rankings.aligning import Aligned
from retrodistill.data.rankings.segments import Floats, Segments, scores_of
from retrodistill.data.store.runs import Run

Norm = Literal["none", "min-max", "percentiles", "z", "theoretical"]

NORM: Norm = "min-max"
"""The default."""

PERCENTILES = (1.0, 99.0)
"""Of a run's whole table: what the norm `percentiles` maps to 0 and 1."""

MINIMA = {
    "bm25": 0.0,
    "cosine": -1.0,
    "probability": 0.0,
    "min-max": 0.0,
    "percentiles": 0.0,
    "rrf": 0.0,
}
"""Scale of a run -> the lowest possible score."""


def scaled_by_percentiles(scores: Floats, percentiles: tuple[float, float]) -> Floats:
    """Return a table's scores clipped to two of its percentiles, which become 0 and 1.

    Where both percentiles are equal, every score is 0.
    """
    if not len(scores):
        return scores
    low, high = np.percentile(scores, percentiles)
    scaled: Floats = (scores.clip(low, high) - low) / ((high - low) or 1.0)
    return scaled


def comparable(
    pairs: Aligned,
    norm: Norm | Literal["ranks"],
    *,
    minima: Sequence[float] | None = None,
    k: float = 60.0,
    without_list: float = 0.0,
) -> Floats:
    """Return each run's normalised score of each pair, of shape (runs, pairs).

    A document that a list lacks counts as the list's lowest one (as 0 by `min-max` and `ranks`);
    for a query without a list, each document counts `without_list`. Scores by `percentiles` are
    normalised before the runs are aligned.
    """
    table = np.zeros((len(pairs.rows), len(pairs)))
    for number, (rows, owners, raw) in enumerate(
        zip(pairs.rows, pairs.owners, pairs.scores, strict=True)
    ):
        lists = Segments.of(owners)
        scores = _normalised(raw, lists, norm, minima[number] if minima else 0.0, k)
        # absent documents: one value a query
        absent = np.full(len(pairs.query_ids), without_list)
        if len(lists):
            is_zero = norm in ("min-max", "ranks")
            absent[owners[lists.starts]] = 0.0 if is_zero else -lists.highest(-scores)
        table[number] = absent[pairs.queries]
        table[number, rows] = scores
    return table


def _normalised(
    scores: Floats, lists: Segments, norm: Norm | Literal["ranks"], minimum: float, k: float
) -> Floats:
    """Return one run's scores, normalised list by list."""
    if norm in ("none", "percentiles") or not len(lists):
        return scores
    if norm == "ranks":
        return 1 / (k + lists.ranks())
    if norm == "z":
        return lists.standardised(scores)
    highest = lists.spread(lists.highest(scores))
    if norm == "theoretical":
        span = highest - minimum
        return (scores - minimum) / np.where(span > 0, span, 1)
    lowest = lists.spread(-lists.highest(-scores))
    span = highest - lowest
    return np.where(span > 0, (scores - lowest) / np.where(span > 0, span, 1), 1.0)


def lowest_possible(runs: Sequence[Run], minima: Sequence[float] | None) -> list[float]:
    """Return each run's lowest possible score: of `minima`, else of the run's scale.

    Raises:
        ConfigError: one is unknown.
        DataError: a run has a lower score.

    """
    candidates = [MINIMA.get(run.scale) for run in runs] if minima is None else list(minima)
    finite = [value for value in candidates if value is not None and np.isfinite(value)]
    if len(finite) != len(runs):
        raise ConfigError(
            f"the norm theoretical needs the lowest possible score of each of {len(runs)} runs, "
            f"but knows {candidates}. Give minima, such as 0 for bm25 and -1 for cosines."
        )
    for number, (run, minimum) in enumerate(zip(runs, finite, strict=True), 1):
        lowest = float(scores_of(run).min(initial=minimum))
        if lowest < minimum:
            raise DataError(
                f"run {number} has a score of {lowest:g}, below its lowest possible {minimum:g}. "
                "Give its true minimum, or use min-max."
            )
    return finite
