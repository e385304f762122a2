"""Distil strong rankers into small dense retrievers, and measure what was kept.

The names below are the public ones. Each is imported when it is first asked for, so
`import retrodistill` itself loads neither torch nor any other large library.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrodistill.arithmetic import average_scores as average_scores
    from retrodistill.arithmetic import calibrated_temperature as calibrated_temperature
    from retrodistill.arithmetic import combine as combine
    from retrodistill.arithmetic import fuse_runs as fuse_runs
    from retrodistill.arithmetic import tune_fusion as tune_fusion
    from retrodistill.benchmarking import run_benchmark as run_benchmark
    from retrodistill.config import TrainSettings as TrainSettings
    from retrodistill.datasets import Collection as Collection
    from retrodistill.datasets import load_collection as load_collection
    from retrodistill.errors import ConfigError as ConfigError
    from retrodistill.errors import DataError as DataError
    from retrodistill.errors import MissingExtra as MissingExtra
    from retrodistill.errors import RetrodistillError as RetrodistillError
    from retrodistill.evaluation import evaluate_runs as evaluate_runs
    from retrodistill.evaluation.fidelity import fidelity as fidelity
    from retrodistill.evaluation.leakage import find_leakage as find_leakage
    from retrodistill.evaluation.seen import seen_in_training as seen_in_training
    from retrodistill.mining import mine_candidates as mine_candidates
    from retrodistill.recipes import load_recipe as load_recipe
    from retrodistill.scoring import compare_candidates as compare_candidates
    from retrodistill.scoring import export_scores as export_scores
    from retrodistill.scoring import import_scores as import_scores
    from retrodistill.scoring import load_teacher as load_teacher
    from retrodistill.scoring import rerank as rerank
    from retrodistill.scoring import score_candidates as score_candidates
    from retrodistill.scoring import verify_scores as verify_scores
    from retrodistill.scoring.audit import audit_teachers as audit_teachers
    from retrodistill.searching import Searcher as Searcher
    from retrodistill.searching import embed_collection as embed_collection
    from retrodistill.store.runs import Run as Run
    from retrodistill.students.choosing import rank_students as rank_students
    from retrodistill.students.dense import DenseEncoder as DenseEncoder
    from retrodistill.students.make import keep_layers as keep_layers
    from retrodistill.students.make import narrow as narrow
    from retrodistill.students.make import prune_vocabulary as prune_vocabulary
    from retrodistill.students.make import soup as soup
    from retrodistill.students.make import two_towers as two_towers
    from retrodistill.training import train_student as train_student

_HOMES = {
    "Collection": "retrodistill.datasets",
    "load_collection": "retrodistill.datasets",
    "Run": "retrodistill.store.runs",
    "mine_candidates": "retrodistill.mining",
    "load_teacher": "retrodistill.scoring",
    "rerank": "retrodistill.scoring",
    "score_candidates": "retrodistill.scoring",
    "compare_candidates": "retrodistill.scoring",
    "verify_scores": "retrodistill.scoring",
    "import_scores": "retrodistill.scoring",
    "export_scores": "retrodistill.scoring",
    "audit_teachers": "retrodistill.scoring.audit",
    "average_scores": "retrodistill.arithmetic",
    "combine": "retrodistill.arithmetic",
    "fuse_runs": "retrodistill.arithmetic",
    "tune_fusion": "retrodistill.arithmetic",
    "calibrated_temperature": "retrodistill.arithmetic",
    "keep_layers": "retrodistill.students.make",
    "narrow": "retrodistill.students.make",
    "prune_vocabulary": "retrodistill.students.make",
    "two_towers": "retrodistill.students.make",
    "soup": "retrodistill.students.make",
    "rank_students": "retrodistill.students.choosing",
    "load_recipe": "retrodistill.recipes",
    "TrainSettings": "retrodistill.config",
    "train_student": "retrodistill.training",
    "DenseEncoder": "retrodistill.students.dense",
    "embed_collection": "retrodistill.searching",
    "Searcher": "retrodistill.searching",
    "evaluate_runs": "retrodistill.evaluation",
    "fidelity": "retrodistill.evaluation.fidelity",
    "find_leakage": "retrodistill.evaluation.leakage",
    "seen_in_training": "retrodistill.evaluation.seen",
    "run_benchmark": "retrodistill.benchmarking",
    "RetrodistillError": "retrodistill.errors",
    "ConfigError": "retrodistill.errors",
    "DataError": "retrodistill.errors",
    "MissingExtra": "retrodistill.errors",
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
