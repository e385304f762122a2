"""The settings of every command: one frozen dataclass a verb.

A field is a flag (`max_tokens` is `--max-tokens`), the string below it is its help. A field of
type `tuple[str, ...]` may be given several times. `retrodistill.base.command` reads them.
"""

from retrodistill.base.config.audit import AuditConfig, LeakageConfig
from retrodistill.base.config.base import Device, Executor, Precision, as_dict, at_least
from retrodistill.base.config.benchmark import BenchmarkConfig
from retrodistill.base.config.convert import ConvertConfig
from retrodistill.base.config.distil import DistilConfig
from retrodistill.base.config.evaluate import EvaluateConfig, EvaluationSettings
from retrodistill.base.config.export import ExportConfig
from retrodistill.base.config.fuse import FuseConfig
from retrodistill.base.config.generate import GenerateConfig, GenerateSettings
from retrodistill.base.config.judge import JudgeConfig, JudgeSettings
from retrodistill.base.config.mine import MineConfig, MineSettings
from retrodistill.base.config.quickstart import DoctorConfig, QuickstartConfig
from retrodistill.base.config.report import ReportConfig
from retrodistill.base.config.reproduce import ReproduceConfig
from retrodistill.base.config.rounds import RoundsConfig
from retrodistill.base.config.score import ScoreConfig
from retrodistill.base.config.search import EmbedConfig, IndexSettings, SearchConfig
from retrodistill.base.config.serve import ServeConfig, ServeSettings
from retrodistill.base.config.train import Positives, TrainConfig, TrainSettings

__all__ = [
    "AuditConfig",
    "BenchmarkConfig",
    "ConvertConfig",
    "Device",
    "DistilConfig",
    "DoctorConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "EvaluationSettings",
    "Executor",
    "ExportConfig",
    "FuseConfig",
    "GenerateConfig",
    "GenerateSettings",
    "IndexSettings",
    "JudgeConfig",
    "JudgeSettings",
    "LeakageConfig",
    "MineConfig",
    "MineSettings",
    "Positives",
    "Precision",
    "QuickstartConfig",
    "ReportConfig",
    "ReproduceConfig",
    "RoundsConfig",
    "ScoreConfig",
    "SearchConfig",
    "ServeConfig",
    "ServeSettings",
    "TrainConfig",
    "TrainSettings",
    "as_dict",
    "at_least",
]
