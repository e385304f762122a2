"""Arithmetic over runs: several into one, how much each may say, and how sure a teacher is."""

from retrodistill.arithmetic.combining import How, average_scores, combine, reciprocal_ranks
from retrodistill.arithmetic.fusing import Method, Norm, fuse_runs
from retrodistill.arithmetic.reranking import reranked
from retrodistill.arithmetic.temperature import Calibration, calibrated_temperature, perplexity
from retrodistill.arithmetic.tuning import Tuning, tune_fusion
from retrodistill.arithmetic.weighting import QueryWeights, agreement, confidence

__all__ = [
    "Calibration",
    "How",
    "Method",
    "Norm",
    "QueryWeights",
    "Tuning",
    "agreement",
    "average_scores",
    "calibrated_temperature",
    "combine",
    "confidence",
    "fuse_runs",
    "perplexity",
    "reciprocal_ranks",
    "reranked",
    "tune_fusion",
]
