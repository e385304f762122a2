"""The fused scores of several teachers as one store."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import DataError
from retrodistill.base.logging import log
from retrodistill.data.rankings import Fusion, calibrated_temperature
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import ScoreStore
from retrodistill.stages.scoring.fill_store import store_scores

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

PERPLEXITY = 2.0
"""Lowest median perplexity that leaves a student something to learn beside the first document."""

SCALES = {"z": "z", "percentiles": "percentiles", "min-max": "min-max"}
"""Norm -> scale of the weighted mean of such scores."""


def store_ensemble(
    collection: "Collection",
    scores: Run,
    out: Path,
    *,
    fusion: Fusion,
    config: Mapping[str, Any] | None = None,
) -> ScoreStore:
    """Store scores that a fusion has made of several teachers', and return the store.

    Logs a temperature for listwise losses.

    Raises:
        DataError: the collection lacks a query or a document.

    """
    log_temperature(scores)
    return store_scores(collection, scores, out, scale=scale_of(fusion), config=config)


def scale_of(fusion: Fusion) -> str:
    """Return the scale, a name of `retrodistill.base.types.SCALES`, of what a fusion returns."""
    if fusion.method in ("rrf", "rerank"):
        return "rrf" if fusion.method == "rrf" else "rank"
    return SCALES.get(fusion.norm or "", "unknown") if fusion.method == "sum" else "unknown"


def log_temperature(scores: Run) -> None:
    """Log the teacher temperature that leaves a median perplexity of PERPLEXITY."""
    try:
        calibration = calibrated_temperature(scores, PERPLEXITY)
    except DataError:
        return  # lists of two candidates, or of equal scores: no temperature helps
    low, high = calibration.quartiles
    log.info(
        f"a teacher_temperature of {calibration.temperature:.3g} spreads half of the lists over "
        f"{calibration.perplexity:.3g} documents and more (quartiles {low:.3g} and {high:.3g})."
    )
