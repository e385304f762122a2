"""Settings of `report`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from retrodistill.base.config.base import at_least
from retrodistill.base.config.evaluate import MeasureSettings
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig(MeasureSettings):
    """Settings of `python -m retrodistill.report`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "runs": "run",
        "models": "system",
        "shown": "queries",
        "output": "overwrite",
    }

    run: tuple[Path, ...]
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    out: Path = Path("report")
    """Folder to write: report.html, report.md, report.tex and report.json."""

    system: str | None = None
    """System whose single queries are shown (default: last --run)."""

    teacher: Path | None = None
    """Score store or run of the teacher: a further system, whose scores and lists are compared."""

    student: tuple[Path, ...] = ()
    """Student folder whose training to draw; once for each."""

    index: tuple[Path, ...] = ()
    """Index folder whose tuning to draw, if its manifest holds one; once for each."""

    latency: tuple[str, ...] = ()
    """Milliseconds a query of a system: name=ms; once for each."""

    benchmark: Path | None = None
    """What `benchmark` wrote (its folder, or benchmark.json): the median times of the systems of
    these names on --data; --latency wins."""

    queries: int = 25
    """Queries to show that lost most."""

    depth: int = 10
    """Documents of each list that are shown of such a query."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        MeasureSettings.__post_init__(self)
        at_least(self, 0, "queries")
        at_least(self, 1, "depth")
        self.milliseconds()

    def milliseconds(self) -> dict[str, float]:
        """Return system -> milliseconds a query, as --latency says.

        Raises:
            ConfigError: one is not of the form name=ms.

        """
        found = {}
        for text in self.latency:
            name, _, number = text.rpartition("=")
            try:
                value = float(number)
            except ValueError:
                value = math.nan
            if not name or not 0 < value < math.inf:
                raise ConfigError(
                    f"--latency is written name=ms, as in kl=12.5, but it is {text!r}."
                )
            found[name] = value
        return found
