"""Arithmetic over runs: several into one, how much each may say, and how sure a teacher is."""

from retrodistill.arithmetic.combining import How, average_scores, combine, reciprocal_ranks
from retrodistill.arithmetic.temperature import Calibration, calibrated_temperature, perplexity
from retrodistill.arithmetic.weighting import QueryWeights, agreement, confidence

__all__ = [
    "Calibration",
    "How",
    "QueryWeights",
    "agreement",
    "average_scores",
    "calibrated_temperature",
    "combine",
    "confidence",
    "perplexity",
    "reciprocal_ranks",
]
