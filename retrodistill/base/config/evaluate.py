"""Settings of `evaluate`, and what `report` and `benchmark` share with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrodistill.base.config.base import at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparing:
    """How systems are measured and compared."""

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

    trained_on: tuple[str, ...] = ()
    """Split of --data, or student folder, that systems were trained on, beside what their records
    say; once for each. Systems are measured also on the queries that training has not seen."""

    near_double: float = 0.6
    """A query whose words have this Jaccard similarity with those of a training query, or a higher
    one, is its near double."""

    def __post_init__(self) -> None:
        at_least(self, 0, "tie", "seed")
        if not 0 < self.near_double <= 1:
            raise ConfigError(
                f"--near-double must lie above 0 and up to 1, but it is {self.near_double}."
            )

    def learned(self) -> dict[str, Any]:
        """Return the settings of `evaluate_with_unseen` beside those of `measuring`."""
        return {"trained_on": self.trained_on, "near_double": self.near_double}

    def measuring(self) -> dict[str, Any]:
        """Return the settings of `evaluate_runs`."""
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
class MeasureSettings(Comparing):
    """How systems are measured and compared, and against which judgements."""

    data: str | None = None
    """Collection with the judgements (or give --qrels); `report` shows its texts too."""

    split: str = "test"
    """Split of --data."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of --data."""

    def __post_init__(self) -> None:
        Comparing.__post_init__(self)
        if (self.data is None) == (self.qrels is None):
            raise ConfigError("give either --data (with --split) or --qrels.")


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

    card: Path | None = None
    """File for a result card (YAML): the numbers, and all that it takes to get them again."""

    def __post_init__(self) -> None:
        if self.metrics == "help":
            return
        if not self.run:
            raise ConfigError("needs --run. See --help.")
        MeasureSettings.__post_init__(self)
