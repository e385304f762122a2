"""Several teachers' tables as one store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrodistill.base.errors import DataError
from retrodistill.base.logging import log
from retrodistill.data.rankings import (
    How,
    agreement,
    calibrated_temperature,
    combine,
    confidence,
)
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import ScoreStore
from retrodistill.stages.scoring.fill_store import store_scores

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

PERPLEXITY = 2.0
"""Lowest median perplexity that leaves a student something to learn beside the first document."""


def store_ensemble(
    collection: "Collection",
    paths: Sequence[Path],
    out: Path,
    *,
    how: How = "z",
    weights: Sequence[float] | None = None,
    query_weight: Literal["none", "confidence", "agreement"] = "none",
    split: str = "train",
    config: Mapping[str, Any] | None = None,
) -> ScoreStore:
    """Make a store of the runs or score stores at `paths`, combined by `how`, and return it.

    `query_weight` weighs each member query by query: by how sure it is, or by its rank of what
    the collection's split calls relevant. A temperature for listwise losses is logged.

    Raises:
        ConfigError: weights that do not fit, or no such split.
        DataError: the members share no pair, or name what the collection does not hold.

    """
    members = [Run.read(path) for path in paths]
    own = None
    if query_weight == "confidence":
        own = confidence(members)
    elif query_weight == "agreement":
        own = agreement(members, collection.qrels(split))
    scores = combine(members, how, weights=weights, query_weights=own)
    tell_temperature(scores)
    scale = "unknown" if how == "mean" else how
    return store_scores(collection, scores, out, scale=scale, config=config)


def tell_temperature(scores: Run) -> None:
    """Tell which teacher temperature leaves a median perplexity of PERPLEXITY."""
    try:
        found = calibrated_temperature(scores, PERPLEXITY)
    except DataError:
        return  # lists of two candidates, or of equal scores: no temperature helps
    low, high = found.quartiles
    log.info(
        f"a teacher_temperature of {found.temperature:.3g} spreads half of the lists over "
        f"{found.perplexity:.3g} documents and more (quartiles {low:.3g} and {high:.3g})."
    )
