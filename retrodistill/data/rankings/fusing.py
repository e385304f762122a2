"""Fusion: the lists of several retrievers as one list for each query."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.rankings.aligning import Aligned, align
from retrodistill.data.rankings.combining import combine
from retrodistill.data.rankings.lists import Floats, Lists, Numbers, scores_of
from retrodistill.data.rankings.reranking import reranked
from retrodistill.data.rankings.weighting import checked_weights
from retrodistill.data.store.runs import Run

Method = Literal["sum", "max", "mnz", "rrf", "rerank"]
Norm = Literal["none", "min-max", "z", "theoretical"]

NORM: Norm = "min-max"
"""What makes scores comparable where nothing else is said."""

MINIMA = {"bm25": 0.0, "cosine": -1.0, "probability": 0.0, "minmax": 0.0, "rrf": 0.0}
"""Scale of a run -> the lowest score that there can be."""


def fuse_runs(
    runs: Sequence[Run],
    method: Method = "sum",
    *,
    weights: Sequence[float] | None = None,
    norm: Norm | None = None,
    minima: Sequence[float] | None = None,
    k: float = 60.0,
) -> Run:
    """Return one run of several: every pair that any of them holds, with a score made of theirs.

    - `sum`: the weighted mean of the scores, a convex combination.
    - `max`: the highest of the weighted scores.
    - `mnz`: the weighted mean times the number of runs that hold the pair.
    - `rrf`: the weighted sum of 1 / (k + rank), ranks from 1, by `combine`; there is no `norm`.
    - `rerank`: the second run's documents in its order, then the rest of the first (`reranked`).

    Scores are made comparable list by list, before they meet:

    - `min-max` (default): 0 is the list's lowest score, 1 its highest.
    - `z`: mean 0, deviation 1.
    - `theoretical`: 0 is the lowest score that there can be, of `minima` or the run's scale; 1 the
      list's highest.
    - `none`: as they are.

    A document that a run's list lacks counts there as the list's lowest one; with rrf, it gets
    nothing. A list of equal scores is 1 throughout by `min-max`, what it lacks is 0. A query that
    a run lacks altogether is decided by the other runs. Of weights only the proportions count.

    Source: Fox and Shaw 1994, "Combination of Multiple Searches", for CombSUM, CombMAX and CombMNZ;
    Bruch et al. 2023, arXiv:2210.11934, for the convex combination and the theoretical minimum
    (from its abstract and from memory; the rule for absent documents is ours).

    Raises:
        ConfigError: there are no runs, or settings that do not fit.
        DataError: a score is below its minimum.

    """
    check_method(method, norm)
    if method == "rerank":
        if len(runs) != 2 or weights is not None:
            raise ConfigError(
                "rerank takes two runs, the first stage and the scores of the second, and no "
                f"weights, but got {len(runs)} runs and the weights {weights}."
            )
        return reranked(*runs)
    if method == "rrf":
        return combine(runs, "rrf", weights=weights, k=k)
    shares = checked_weights(len(runs), weights)
    pairs = align(runs)
    values = comparable(runs, pairs, method, norm, minima=minima, k=k)
    return pairs.run(fused(values, pairs.counts(), method, shares), source=f"fusion by {method}")


def check_method(method: Method, norm: Norm | None) -> None:
    """Raise ConfigError where a method and a normalisation do not fit."""
    for name, value, known in (("method", method, Method), ("norm", norm or NORM, Norm)):
        if value not in get_args(known):
            raise ConfigError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}.")
    if norm is not None and method in ("rrf", "rerank"):
        raise ConfigError(f"{method} looks at ranks only: leave the norm {norm!r} away.")
    if method == "mnz" and norm in ("none", "z"):
        raise ConfigError(
            f"mnz multiplies scores, so they must not be negative: use min-max, not {norm!r}."
        )


def fused(values: Floats, counts: Numbers, method: Method, shares: Floats) -> Floats:
    """Return the score of each pair from comparable ones of shape (runs, pairs).

    Works on values of shape (runs, queries, documents) as well.
    """
    used = shares > 0
    weights = shares[used] / shares.sum()
    if method == "max":
        highest = np.max([w * row for w, row in zip(weights, values[used], strict=True)], axis=0)
        return np.where(np.isneginf(highest), 0.0, highest)
    total: Floats = np.tensordot(weights, values[used], 1)
    return total * counts if method == "mnz" else total


def comparable(
    runs: Sequence[Run],
    pairs: Aligned,
    method: Method = "sum",
    norm: Norm | None = None,
    *,
    minima: Sequence[float] | None = None,
    k: float = 60.0,
) -> Floats:
    """Return every run's score of every pair as `method` is to see it, of shape (runs, pairs).

    Documents that a list lacks count as its lowest (0 by `min-max` and `rrf`). For queries that a
    run lacks it has 0, or with `max` nothing: minus infinity.
    """
    form = "ranks" if method == "rrf" else norm or NORM
    lowest_ones = _minima(runs, minima) if form == "theoretical" else [0.0] * len(runs)
    table = np.zeros((len(runs), len(pairs)))
    for member, (run, owners) in enumerate(zip(runs, pairs.owners, strict=True)):
        lists = Lists.of(owners)
        scores = _normalised(scores_of(run), lists, form, lowest_ones[member], k)
        others = np.full(len(pairs.query_ids), -np.inf if method == "max" else 0.0)
        if len(lists):
            zero = form in ("min-max", "ranks")
            others[owners[lists.starts]] = 0.0 if zero else -lists.highest(-scores)
        table[member] = others[pairs.queries]
        table[member, pairs.rows[member]] = scores
    return table


def _normalised(
    scores: Floats, lists: Lists, norm: Norm | Literal["ranks"], minimum: float, k: float
) -> Floats:
    """Return a run's scores, comparable from list to list."""
    if norm == "none" or not len(lists):
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


def _minima(runs: Sequence[Run], minima: Sequence[float] | None) -> list[float]:
    """Return each run's lowest possible score, as it is given or as its scale says it.

    Raises:
        ConfigError: one is not known.
        DataError: a run goes below it.

    """
    found = [MINIMA.get(run.scale) for run in runs] if minima is None else list(minima)
    known = [minimum for minimum in found if minimum is not None and np.isfinite(minimum)]
    if len(known) != len(runs):
        raise ConfigError(
            f"the norm theoretical needs the lowest possible score of each of {len(runs)} runs, "
            f"but knows {found}. Give minima, such as 0 for bm25 and -1 for cosines."
        )
    for number, (run, minimum) in enumerate(zip(runs, known, strict=True), 1):
        lowest = float(scores_of(run).min(initial=minimum))
        if lowest < minimum:
            raise DataError(
                f"run {number} has a score of {lowest:g}, below its lowest possible {minimum:g}. "
                "Give its true minimum, or use min-max."
            )
    return known
