"""Scoring: candidates to a store of teacher scores, crash-safe and resumable."""

from retrodistill.data.rankings import average_scores
from retrodistill.models.teachers import load_teacher
from retrodistill.stages.scoring.candidates import read_candidates
from retrodistill.stages.scoring.ensembles import store_ensemble
from retrodistill.stages.scoring.exchange import export_scores, import_scores
from retrodistill.stages.scoring.fill_store import (
    compare_candidates,
    score_candidates,
    store_scores,
)
from retrodistill.stages.scoring.reranking import rerank
from retrodistill.stages.scoring.verification import status, verify_scores
from retrodistill.stages.scoring.worker import fill, verify

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
