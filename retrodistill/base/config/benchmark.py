"""Settings of `benchmark`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from retrodistill.base.config.base import at_least
from retrodistill.base.config.evaluate import EvaluationSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig(EvaluationSettings):
    """Settings of `python -m retrodistill.benchmark`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "plan": "plan",
        "timing": "k",
        "output": "overwrite",
    }

    plan: Path
    """YAML file with the datasets and the systems."""

    out: Path = Path("benchmark")
    """Folder of the tables, and of all that is made for them. What is finished there is kept."""

    k: int = 100
    """Documents to find for each query."""

    timed: int = 100
    """Queries of each dataset that are timed, one after the other, as a user asks them."""

    price_per_hour: float | None = None
    """Of this machine, in any currency: adds the price of a million documents and queries."""

    overwrite: bool = False
    """Measure again what is finished."""

    def __post_init__(self) -> None:
        EvaluationSettings.__post_init__(self)
        at_least(self, 1, "k", "timed")
        at_least(self, 0, "price_per_hour")
