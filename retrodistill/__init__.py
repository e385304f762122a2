"""Distil strong rankers into small dense retrievers, and measure what was kept.

The names below are the public ones. Each is imported when it is first asked for, so
`import retrodistill` itself loads neither torch nor any other large library.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrodistill.base.config import EvaluationSettings as EvaluationSettings
    from retrodistill.base.config import GenerateSettings as GenerateSettings
    from retrodistill.base.config import IndexSettings as IndexSettings
    from retrodistill.base.config import JudgeSettings as JudgeSettings
    from retrodistill.base.config import MineSettings as MineSettings
    from retrodistill.base.config import ServeSettings as ServeSettings
    from retrodistill.base.config import TrainSettings as TrainSettings
    from retrodistill.base.errors import ConfigError as ConfigError
    from retrodistill.base.errors import DataError as DataError
    from retrodistill.base.errors import MissingExtra as MissingExtra
    from retrodistill.base.errors import RetrodistillError as RetrodistillError
    from retrodistill.data.datasets import Collection as Collection
    from retrodistill.data.datasets import load_collection as load_collection
    from retrodistill.data.rankings import average_scores as average_scores
    from retrodistill.data.rankings import calibrated_temperature as calibrated_temperature
    from retrodistill.data.rankings import combine as combine
    from retrodistill.data.rankings import fuse_runs as fuse_runs
    from retrodistill.data.rankings import tune_fusion as tune_fusion
    from retrodistill.data.store.runs import Run as Run
    from retrodistill.models.students.choosing import rank_students as rank_students
    from retrodistill.models.students.dense import DenseEncoder as DenseEncoder
    from retrodistill.models.students.transforms import keep_layers as keep_layers
    from retrodistill.models.students.transforms import narrow as narrow
    from retrodistill.models.students.transforms import prune_vocabulary as prune_vocabulary
    from retrodistill.models.students.transforms import soup as soup
    from retrodistill.models.students.transforms import two_towers as two_towers
    from retrodistill.objectives.recipes import load_recipe as load_recipe
    from retrodistill.stages.evaluation import evaluate_runs as evaluate_runs
    from retrodistill.stages.evaluation.fidelity import fidelity as fidelity
    from retrodistill.stages.evaluation.leakage import find_leakage as find_leakage
    from retrodistill.stages.evaluation.seen import seen_in_training as seen_in_training
    from retrodistill.stages.generating import GeneratedQueries as GeneratedQueries
    from retrodistill.stages.generating import generate_queries as generate_queries
    from retrodistill.stages.indexing import embed_collection as embed_collection
    from retrodistill.stages.judging.judging import judge_runs as judge_runs
    from retrodistill.stages.mining import mine_candidates as mine_candidates
    from retrodistill.stages.pipelines.benchmark import run_benchmark as run_benchmark
    from retrodistill.stages.scoring import compare_candidates as compare_candidates
    from retrodistill.stages.scoring import export_scores as export_scores
    from retrodistill.stages.scoring import import_scores as import_scores
    from retrodistill.stages.scoring import load_teacher as load_teacher
    from retrodistill.stages.scoring import rerank as rerank
    from retrodistill.stages.scoring import score_candidates as score_candidates
    from retrodistill.stages.scoring import verify_scores as verify_scores
    from retrodistill.stages.scoring.audit import audit_teachers as audit_teachers
    from retrodistill.stages.searching import Searcher as Searcher
    from retrodistill.stages.serving.app import create_app as create_app
    from retrodistill.stages.training import train_student as train_student

_HOMES = {
    "Collection": "retrodistill.data.datasets",
    "load_collection": "retrodistill.data.datasets",
    "Run": "retrodistill.data.store.runs",
    "generate_queries": "retrodistill.stages.generating",
    "GeneratedQueries": "retrodistill.stages.generating",
    "mine_candidates": "retrodistill.stages.mining",
    "load_teacher": "retrodistill.stages.scoring",
    "rerank": "retrodistill.stages.scoring",
    "score_candidates": "retrodistill.stages.scoring",
    "compare_candidates": "retrodistill.stages.scoring",
    "verify_scores": "retrodistill.stages.scoring",
    "import_scores": "retrodistill.stages.scoring",
    "export_scores": "retrodistill.stages.scoring",
    "audit_teachers": "retrodistill.stages.scoring.audit",
    "average_scores": "retrodistill.data.rankings",
    "combine": "retrodistill.data.rankings",
    "fuse_runs": "retrodistill.data.rankings",
    "tune_fusion": "retrodistill.data.rankings",
    "calibrated_temperature": "retrodistill.data.rankings",
    "keep_layers": "retrodistill.models.students.transforms",
    "narrow": "retrodistill.models.students.transforms",
    "prune_vocabulary": "retrodistill.models.students.transforms",
    "two_towers": "retrodistill.models.students.transforms",
    "soup": "retrodistill.models.students.transforms",
    "rank_students": "retrodistill.models.students.choosing",
    "load_recipe": "retrodistill.objectives.recipes",
    "TrainSettings": "retrodistill.base.config",
    "GenerateSettings": "retrodistill.base.config",
    "MineSettings": "retrodistill.base.config",
    "JudgeSettings": "retrodistill.base.config",
    "IndexSettings": "retrodistill.base.config",
    "ServeSettings": "retrodistill.base.config",
    "EvaluationSettings": "retrodistill.base.config",
    "train_student": "retrodistill.stages.training",
    "DenseEncoder": "retrodistill.models.students.dense",
    "embed_collection": "retrodistill.stages.indexing",
    "Searcher": "retrodistill.stages.searching",
    "create_app": "retrodistill.stages.serving.app",
    "judge_runs": "retrodistill.stages.judging.judging",
    "evaluate_runs": "retrodistill.stages.evaluation",
    "fidelity": "retrodistill.stages.evaluation.fidelity",
    "find_leakage": "retrodistill.stages.evaluation.leakage",
    "seen_in_training": "retrodistill.stages.evaluation.seen",
    "run_benchmark": "retrodistill.stages.pipelines.benchmark",
    "RetrodistillError": "retrodistill.base.errors",
    "ConfigError": "retrodistill.base.errors",
    "DataError": "retrodistill.base.errors",
    "MissingExtra": "retrodistill.base.errors",
}
"""Public name -> the module that it lives in."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name, or read the version, when it is first asked for."""
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    try:
        return version("retrodistill")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0+unknown"
