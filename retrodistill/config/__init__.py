"""The settings of every command: one frozen dataclass a verb.

A field is a flag (`max_tokens` is `--max-tokens`), the string below it is its help. A field of
type `tuple[str, ...]` may be given several times. `retrodistill.command` reads them.
"""

from retrodistill.config.base import Executor, Precision, as_dict, at_least
from retrodistill.config.benchmark import BenchmarkConfig
from retrodistill.config.convert import ConvertConfig
from retrodistill.config.evaluate import EvaluateConfig
from retrodistill.config.fuse import FuseConfig
from retrodistill.config.mine import MineConfig
from retrodistill.config.quickstart import DoctorConfig, QuickstartConfig
from retrodistill.config.report import ReportConfig
from retrodistill.config.score import AuditConfig, ScoreConfig
from retrodistill.config.search import EmbedConfig, SearchConfig
from retrodistill.config.train import Positives, TrainConfig, TrainSettings

__all__ = [
    "AuditConfig",
    "BenchmarkConfig",
    "ConvertConfig",
    "DoctorConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "Executor",
    "FuseConfig",
    "MineConfig",
    "Positives",
    "Precision",
    "QuickstartConfig",
    "ReportConfig",
    "ScoreConfig",
    "SearchConfig",
    "TrainConfig",
    "TrainSettings",
    "as_dict",
    "at_least",
]
