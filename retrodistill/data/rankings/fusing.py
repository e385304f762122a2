"""Fusion: the scored lists of several systems as one list for each query."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from retrodistill.base.errors import ConfigError
from retrodistill.data.rankings.aligning import Aligned, align
from retrodistill.data.rankings.normalising import (
    NORM,
    PERCENTILES,
    Norm,
    comparable,
    lowest_possible,
    scaled_by_percentiles,
)
from retrodistill.data.rankings.reranking import reranked
from retrodistill.data.rankings.segments import Floats, Numbers, scores_of
from retrodistill.data.rankings.weighting import QueryWeights, checked_weights, relative_weights
from retrodistill.data.store.runs import Run

Method = Literal["sum", "max", "mnz", "rrf", "rerank"]
Pairs = Literal["all", "shared"]
How = Literal["mean", "z", "percentiles", "rrf"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """How several runs become one; `fuse_runs` explains the settings.

    Raises:
        ConfigError: a setting is unknown, or two do not fit each other.

    """

    method: Method = "sum"
    norm: Norm | None = None
    """None: min-max, or ranks where the method looks at ranks only."""

    pairs: Pairs = "all"
    minima: Sequence[float] | None = None
    k: float = 60.0
    percentiles: tuple[float, float] = PERCENTILES

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("method", self.method, get_args(Method)),
            ("norm", self.norm or NORM, get_args(Norm)),
            ("pairs", self.pairs, get_args(Pairs)),
        ):
            if value not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
        by_ranks = self.method in ("rrf", "rerank")
        if by_ranks and self.norm is not None:
            raise ConfigError(f"{self.method} looks at ranks only: omit the norm {self.norm!r}.")
        if by_ranks and self.pairs == "shared":
            raise ConfigError(f"{self.method} looks at ranks in whole lists: omit pairs 'shared'.")
        if self.method == "mnz" and self.norm in ("none", "z"):
            raise ConfigError(
                "mnz multiplies scores, so they must not be negative: use min-max, not "
                f"{self.norm!r}."
            )
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ConfigError(
                "percentiles must be a lower and a higher one from 0 to 100, not "
                f"{self.percentiles}."
            )
        if not 0 <= self.k < np.inf:
            raise ConfigError(f"k must be 0 or a positive number, but it is {self.k}.")

    def fuse(
        self,
        runs: Sequence[Run],
        *,
        weights: Sequence[float] | None = None,
        query_weights: QueryWeights | None = None,
    ) -> Run:
        """Return the runs as one.

        Raises:
            ConfigError: there are no runs, or weights that do not fit them.
            DataError: the runs share no pair where only shared ones are kept, a query has no
                weights, or a score is below its minimum.

        """
        if self.method == "rerank":
            if len(runs) != 2 or weights is not None or query_weights is not None:
                raise ConfigError(
                    "rerank takes two runs, the first stage and the scores of the second, and no "
                    f"weights, but got {len(runs)} runs and the weights {weights}."
                )
            return reranked(*runs)
        shares = checked_weights(len(runs), weights)
        pairs = self.aligned(runs)
        if query_weights is None:
            relative = shares[:, None] / shares.mean()  # (runs, 1)
        else:
            by_query = relative_weights(shares, query_weights, pairs.query_ids)
            relative = by_query[:, pairs.queries]  # (runs, pairs)
        scores = self.fused(self.comparable(runs, pairs), pairs.counts(), relative)
        return pairs.run(scores, source=f"fusion by {self.method}")

    def aligned(self, runs: Sequence[Run]) -> Aligned:
        """Return the pairs to fuse, with raw scores or, by `percentiles`, normalised ones."""
        scores = [scores_of(run) for run in runs]
        if self.norm == "percentiles":  # of whole tables, so before any pair is dropped
            scores = [scaled_by_percentiles(values, self.percentiles) for values in scores]
        pairs = align(runs, scores)
        return pairs.shared() if self.pairs == "shared" else pairs

    def comparable(self, runs: Sequence[Run], pairs: Aligned) -> Floats:
        """Return each run's normalised score of each pair, of shape (runs, pairs)."""
        norm = self.norm or NORM
        return comparable(
            pairs,
            "ranks" if self.method == "rrf" else norm,
            minima=lowest_possible(runs, self.minima) if norm == "theoretical" else None,
            k=self.k,
            without_list=-np.inf if self.method == "max" else 0.0,
        )

    def fused(self, values: Floats, counts: Numbers, weights: Floats) -> Floats:
        """Return one score of several normalised ones.

        `values` has the shape (runs, ...), `counts` the shape (...). `weights` are relative: their
        mean over the runs is 1; they are broadcast to the shape of the values.
        """
        if self.method == "max":
            highest = np.full(values.shape[1:], -np.inf)
            for weight, scores in zip(weights, values, strict=True):
                weighted = np.full(scores.shape, -np.inf)
                np.multiply(weight, scores, out=weighted, where=weight > 0)
                highest = np.maximum(highest, weighted)
            return np.where(np.isneginf(highest), 0.0, highest / len(values))
        total = np.zeros(values.shape[1:])
        for weight, scores in zip(weights, values, strict=True):
            total += weight * scores
        if self.method == "rrf":
            return total
        mean: Floats = total / len(values)
        return mean * counts if self.method == "mnz" else mean


def fuse_runs(
    runs: Sequence[Run],
    method: Method = "sum",
    *,
    weights: Sequence[float] | None = None,
    query_weights: QueryWeights | None = None,
    norm: Norm | None = None,
    pairs: Pairs = "all",
    minima: Sequence[float] | None = None,
    k: float = 60.0,
) -> Run:
    """Return several runs as one: each (query, document) pair with one score of several.

    - `sum`: the weighted mean of the scores, a convex combination.
    - `max`: the highest of the weighted scores.
    - `mnz`: the weighted mean times the number of runs that hold the pair.
    - `rrf`: the weighted sum of 1 / (k + rank), ranks from 1; there is no `norm`.
    - `rerank`: the second run's documents in its order, then the rest of the first (`reranked`).

    Scores are normalised before they are combined, by `norm`:

    - `min-max` (default): 0 is the lowest score of each list, 1 its highest.
    - `percentiles`: 0 and 1 are the 1st and the 99th percentile of the run's whole table, and
      scores beyond them are clipped, so that an easy query's worst document may be above 0.
    - `z`: mean 0 and deviation 1 in each list; equal scores become 0.
    - `theoretical`: 0 is the lowest possible score, of `minima` or the run's scale; 1 the highest
      of each list.
    - `none`: raw scores, for systems of one scale.

    With `pairs` `all`, every pair that any run holds is kept: a document that a run's list lacks
    counts there as the list's lowest one; with rrf, it gets nothing. A list of equal scores is 1
    throughout by `min-max`, what it lacks is 0. A query that a run lacks altogether is decided by
    the other runs. With `shared`, only the pairs that every run holds are kept, normalised among
    each other: for teachers, each of which should have scored what the ensemble teaches.

    Of weights only the proportions count. A query's `query_weights` multiply those of the runs;
    where all products are 0, those of the runs are used.

    Source: Fox and Shaw 1994, "Combination of Multiple Searches", for CombSUM, CombMAX and CombMNZ;
    Cormack, Clarke and Buettcher 2009, "Reciprocal Rank Fusion outperforms Condorcet";
    Bruch et al. 2023, arXiv:2210.11934, for the convex combination and the theoretical minimum
    (from its abstract and from memory; the rule for absent documents is ours).

    Raises:
        ConfigError: there are no runs, or settings that do not fit.
        DataError: the runs share no pair where only shared ones are kept, a query has no weights,
            or a score is below its minimum.

    """
    fusion = Fusion(method=method, norm=norm, pairs=pairs, minima=minima, k=k)
    return fusion.fuse(runs, weights=weights, query_weights=query_weights)


def combine(
    runs: Sequence[Run],
    how: How = "z",
    *,
    weights: Sequence[float] | None = None,
    query_weights: QueryWeights | None = None,
    percentiles: tuple[float, float] = PERCENTILES,
    k: float = 60.0,
) -> Run:
    """Return the scores of several teachers as one: `fuse_runs` over the pairs that all score.

    `mean`, `z` and `percentiles` are the weighted mean of raw scores, or by that norm; `rrf` is
    the weighted sum of reciprocal ranks, and keeps every pair.

    Raises:
        ConfigError: there are no runs, `how` is unknown, or settings that do not fit.
        DataError: the runs share no pair, or a query has no weights.

    """
    if how not in get_args(How):
        raise ConfigError(f"how must be one of {', '.join(get_args(How))}, but it is {how!r}.")
    if how == "rrf":
        fusion = Fusion(method="rrf", k=k, percentiles=percentiles)
    else:
        norm: Norm = "none" if how == "mean" else how
        fusion = Fusion(norm=norm, pairs="shared", percentiles=percentiles, k=k)
    return fusion.fuse(runs, weights=weights, query_weights=query_weights)


def average_scores(runs: Sequence[Run], *, weights: Sequence[float] | None = None) -> Run:
    """Return the weighted mean of the runs' z-scores: `combine` by `z`."""
    return combine(runs, "z", weights=weights)


def reciprocal_ranks(runs: Sequence[Run], *, k: float = 60.0) -> Run:
    """Return the sum over runs of 1 / (k + rank), ranks from 1: `combine` by `rrf`."""
    return combine(runs, "rrf", k=k)
