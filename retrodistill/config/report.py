"""Settings of `report`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrodistill.config.base import at_least
from retrodistill.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """Settings of `python -m retrodistill.report`."""

    run: tuple[Path, ...]
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    data: str | None = None
    """Collection with the judgements and the texts to show (or give --qrels)."""

    split: str = "test"
    """Split of --data."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of --data; the page then shows ids without texts."""

    out: Path = Path("report")
    """Folder to write: report.html, report.md, report.tex and report.json."""

    metrics: str = "ndcg@10,mrr@10,map,recall@100"
    """Comma-separated: name@cutoff(key=value,...). Plots and lists of queries follow the first."""

    ignore_identical_ids: bool = False
    """Leave out documents that have the id of their query, as BEIR does."""

    judged_only: bool = False
    """Leave out documents without a judgement, and measure the condensed lists."""

    test: Literal["t", "fisher", "none"] = "t"
    """Paired test between systems: Student's t, Fisher's randomisation, or none."""

    correction: Literal["holm", "tukey", "none"] = "holm"
    """Of p for the number of comparisons: Holm's, Tukey's randomised HSD over all systems, or none.
    """

    baseline: str | None = None
    """Compare all systems with this one only: its name in the table (default: all pairs in the
    tests, the first --run in the plots)."""

    tie: float = 1e-9
    """Values of a query that differ by at most this are equal."""

    seed: int = 0
    """Of the bootstrap intervals, of the randomised tests, and of the pairs that are drawn."""

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

    queries: int = 25
    """Queries to show that lost most."""

    depth: int = 10
    """Documents of each list that are shown of such a query."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        if (self.data is None) == (self.qrels is None):
            raise ConfigError("give either --data (with --split) or --qrels.")
        at_least(self, 0, "queries", "tie", "seed")
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
