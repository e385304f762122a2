"""Scoring: candidates to a store of teacher scores, crash-safe and resumable."""

from retrodistill.arithmetic import average_scores
from retrodistill.scoring.checking import status, verify_scores
from retrodistill.scoring.ensembles import store_ensemble
from retrodistill.scoring.exchange import export_scores, import_scores
from retrodistill.scoring.filling import (
    compare_candidates,
    read_candidates,
    score_candidates,
    store_scores,
)
from retrodistill.scoring.reranking import rerank
from retrodistill.scoring.work import fill, verify
from retrodistill.teachers import load_teacher

__all__ = [
    "average_scores",
    "compare_candidates",
    "export_scores",
    "fill",
    "import_scores",
    "load_teacher",
    "read_candidates",
    "rerank",
    "score_candidates",
    "status",
    "store_ensemble",
    "store_scores",
    "verify",
    "verify_scores",
]
