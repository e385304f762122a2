"""Arithmetic over runs: several into one, how much each may say, and how sure a teacher is."""

from retrodistill.data.rankings.combining import How, average_scores, combine, reciprocal_ranks
from retrodistill.data.rankings.fusing import Method, Norm, fuse_runs
from retrodistill.data.rankings.reranking import reranked
from retrodistill.data.rankings.temperature import Calibration, calibrated_temperature, perplexity
from retrodistill.data.rankings.tuning import Tuning, tune_fusion
from retrodistill.data.rankings.weighting import QueryWeights, agreement, confidence

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
