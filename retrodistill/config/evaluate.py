"""Settings of `evaluate`, and what `report` shares with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrodistill.config.base import at_least
from retrodistill.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureSettings:
    """How systems are measured and compared."""

    data: str | None = None
    """Collection with the judgements (or give --qrels); `report` shows its texts too."""

    split: str = "test"
    """Split of --data."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of --data."""

    metrics: str = "ndcg@10,mrr@10,map,recall@100"
    """Comma-separated: name@cutoff(key=value,...), as in ndcg@10 or map(rel=2); `evaluate --metrics
    help` lists them. A report's plots and lists of queries follow the first."""

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
    tests, and the first --run in a report's plots)."""

    tie: float = 1e-9
    """Values of a query that differ by at most this are neither win nor loss."""

    seed: int = 0
    """Of the bootstrap intervals, of the randomised tests, and of the pairs that a report draws."""

    def __post_init__(self) -> None:
        if (self.data is None) == (self.qrels is None):
            raise ConfigError("give either --data (with --split) or --qrels.")
        at_least(self, 0, "tie", "seed")

    def measuring(self) -> dict[str, Any]:
        """Return the settings of `evaluate_runs`."""
        names = (
            "metrics", "ignore_identical_ids", "judged_only", "test", "correction", "baseline",
            "tie", "seed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(MeasureSettings):
    """Settings of `python -m retrodistill.evaluate`."""

    run: tuple[Path, ...] = ()
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    teacher: Path | None = None
    """Score store or run of a teacher: tell how closely each --run follows it as well."""

    per_query: bool = False
    """Put each query's values into the JSON."""

    json: Path | None = None
    """File for the results."""

    def __post_init__(self) -> None:
        if self.metrics == "help":
            return
        if not self.run:
            raise ConfigError("needs --run. See --help.")
        MeasureSettings.__post_init__(self)
