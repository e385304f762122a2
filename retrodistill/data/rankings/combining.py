"""Several runs into one."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.data.rankings.aligning import align
from retrodistill.data.rankings.lists import Floats, Lists, Numbers, scores_of
from retrodistill.data.rankings.weighting import QueryWeights, checked_weights, relative_weights
from retrodistill.data.store.runs import Run

How = Literal["mean", "z", "minmax", "rrf"]


def combine(
    runs: Sequence[Run],
    how: How = "z",
    *,
    weights: Sequence[float] | None = None,
    query_weights: QueryWeights | None = None,
    percentiles: tuple[float, float] = (1, 99),
    k: float = 60.0,
) -> Run:
    """Return one run of several: the weighted mean of their scores, made comparable by `how`.

    - `mean`: raw scores, for teachers of one scale.
    - `z`: standardised over the query's common candidates (mean 0, deviation 1); a run that
      scores all of them the same adds nothing.
    - `minmax`: clipped to two `percentiles` of the run's whole table, which become 0 and 1; a
      table whose percentiles are equal gives 0.
    - `rrf`: not a mean but the sum of 1 / (k + rank), ranks from 1; a pair that a run lacks gets
      nothing from it.

    Only pairs that every run has are kept (except by `rrf`); how many were not is told. Of
    weights only the proportions count: equal ones are as none, whatever their size. A query's own
    weights multiply those of the runs; where all products are 0, those of the runs hold.

    Source: Cormack, Clarke and Buettcher 2009, "Reciprocal Rank Fusion outperforms Condorcet".

    Raises:
        ConfigError: there are no runs, no such `how`, or settings that do not fit.
        DataError: the runs share no pair, or a query has no weights.

    """
    _check(how, percentiles, k)
    shares = checked_weights(len(runs), weights)
    pairs = align(runs)
    relative = relative_weights(shares, query_weights, pairs.query_ids)
    kept = np.ones(len(pairs), np.bool_)
    if how != "rrf":
        kept = _shared(pairs.counts() == len(runs))
    owners, numbers = pairs.queries[kept], pairs.docs[kept]
    total = np.zeros(len(owners))
    for member, rows in enumerate(pairs.rows):
        values = np.zeros(len(pairs))
        values[rows] = _comparable(runs[member], pairs.owners[member], how, percentiles, k)
        values = values[kept]
        if how == "z":
            values = Lists.of(owners).standardised(values)
        total += relative[member, owners] * values
    scores = total if how == "rrf" else total / len(runs)
    query_ids, doc_ids = pairs.query_ids.take(owners), pairs.doc_ids.take(numbers)
    return Run.from_columns(
        query_ids, doc_ids, scores, source=f"combination by {how}", lineage=pairs.lineage
    )


def average_scores(runs: Sequence[Run], *, weights: Sequence[float] | None = None) -> Run:
    """Return the weighted mean of the runs' z-scores: `combine` by `z`."""
    return combine(runs, "z", weights=weights)


def reciprocal_ranks(runs: Sequence[Run], *, k: float = 60.0) -> Run:
    """Return the sum over runs of 1 / (k + rank), ranks from 1: `combine` by `rrf`."""
    return combine(runs, "rrf", k=k)


def _check(how: How, percentiles: tuple[float, float], k: float) -> None:
    """Raise ConfigError where a setting of `combine` has no meaning."""
    if how not in get_args(How):
        raise ConfigError(f"how must be one of {', '.join(get_args(How))}, but it is {how!r}.")
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ConfigError(
            f"percentiles must be a lower and a higher one from 0 to 100, not {percentiles}."
        )
    if not 0 <= k < np.inf:
        raise ConfigError(f"k must be 0 or a positive number, but it is {k}.")


def _shared(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pairs every run has, after telling how many others there are."""
    if not kept.any():
        raise DataError(
            "the members of the ensemble share no (query, document) pair. Score the same "
            "--candidates with each teacher."
        )
    dropped = len(kept) - int(kept.sum())
    if dropped:
        log.info(
            f"{dropped:,} of {len(kept):,} pairs are left out: not every member of the ensemble "
            "scored them."
        )
    return kept


def _comparable(
    run: Run, owners: Numbers, how: How, percentiles: tuple[float, float], k: float
) -> Floats:
    """Return what each row of a run counts, as far as the run alone says it."""
    if how == "rrf":
        return 1 / (k + Lists.of(owners).ranks())
    scores = scores_of(run)
    if how == "minmax":
        low, high = np.percentile(scores, percentiles)
        scores = (scores.clip(low, high) - low) / ((high - low) or 1.0)
    return scores
