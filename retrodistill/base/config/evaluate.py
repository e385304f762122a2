"""Settings of `evaluate`, and those that `report` and `benchmark` share with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrodistill.base.config.base import at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """How systems are measured and compared."""

    metrics: str = "ndcg@10,mrr@10,map,recall@100"
    """Comma-separated: name@cutoff(key=value,...), as in ndcg@10 or map(rel=2); `evaluate --metrics
    help` lists them. A report's plots and lists of queries follow the first."""

    ignore_identical_ids: bool = False
    """Drop documents that have the id of their query, as BEIR does."""

    judged_only: bool = False
    """Drop documents without a judgement, and measure the condensed lists."""

    test: Literal["t", "fisher", "none"] = "t"
    """Paired test between systems: Student's t, Fisher's randomisation, or none."""

    correction: Literal["holm", "tukey", "none"] = "holm"
    """Correction of p for the number of comparisons: Holm's, Tukey's randomised HSD over all
    systems, or none."""

    baseline: str | None = None
    """Compare all systems with this one only: its name in the table (default: all pairs in the
    tests, the first --run in a report's plots)."""

    tie: float = 1e-9
    """Values of a query that differ by at most this are neither win nor loss."""

    seed: int = 0
    """Seed of the bootstrap intervals, the randomised tests, and the pairs that a report plots."""

    trained_on: tuple[str, ...] = ()
    """Split of --data, or student folder, that systems were trained on, in addition to their
    records; repeatable. Systems are also measured on the queries that training has not seen."""

    near_double: float = 0.6
    """Jaccard similarity of the words of two queries from which they are near doubles."""

    def __post_init__(self) -> None:
        at_least(self, 0, "tie", "seed")
        if not 0 < self.near_double <= 1:
            raise ConfigError(
                f"--near-double must lie above 0 and up to 1, but it is {self.near_double}."
            )

    def measuring(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, for a result card."""
        names = (
            "metrics",
            "ignore_identical_ids",
            "judged_only",
            "test",
            "correction",
            "baseline",
            "tie",
            "seed",
        )
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureSettings(EvaluationSettings):
    """How systems are measured and compared, and against which judgements."""

    data: str | None = None
    """Collection with the judgements (or give --qrels); `report` shows its texts too."""

    split: str = "test"
    """Split of --data."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of --data."""

    def __post_init__(self) -> None:
        EvaluationSettings.__post_init__(self)
        if (self.data is None) == (self.qrels is None):
            raise ConfigError("give either --data (with --split) or --qrels.")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(MeasureSettings):
    """Settings of `python -m retrodistill.evaluate`."""

    run: tuple[Path, ...] = ()
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    teacher: Path | None = None
    """Score store or run of a teacher: also measure how closely each --run follows it."""

    per_query: bool = False
    """Include each query's values in the JSON."""

    json: Path | None = None
    """File for the results."""

    card: Path | None = None
    """File for a result card (YAML): the numbers, and what it takes to reproduce them."""

    def __post_init__(self) -> None:
        if self.metrics == "help":
            return
        if not self.run:
            raise ConfigError("needs --run. See --help.")
        MeasureSettings.__post_init__(self)
