"""Rankings: what is done to scored lists. They are fused, tuned, measured and correlated here.

Nothing here runs a model or reads a collection's texts.
"""

from retrodistill.data.rankings.fusing import (
    Fusion,
    How,
    Method,
    Pairs,
    average_scores,
    combine,
    fuse_runs,
    reciprocal_ranks,
)
from retrodistill.data.rankings.normalising import Norm
from retrodistill.data.rankings.reranking import reranked
from retrodistill.data.rankings.temperature import Calibration, calibrated_temperature, perplexity
from retrodistill.data.rankings.tuning import Tuning, tune_fusion
from retrodistill.data.rankings.weighting import QueryWeights, agreement, confidence

__all__ = [
    "Calibration",
    "Fusion",
    "How",
    "Method",
    "Norm",
    "Pairs",
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
