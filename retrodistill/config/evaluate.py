"""Settings of `evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrodistill.config.base import at_least
from retrodistill.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Settings of `python -m retrodistill.evaluate`."""

    run: tuple[Path, ...] = ()
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    data: str | None = None
    """Collection with the judgements (or give --qrels)."""

    split: str = "test"
    """Split of --data."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of --data."""

    teacher: Path | None = None
    """Score store or run of a teacher: tell how closely each --run follows it as well."""

    metrics: str = "ndcg@10,mrr@10,map,recall@100"
    """Comma-separated: name@cutoff(key=value,...), as in ndcg@10 or map(rel=2); `help` lists them.
    """

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
    """Compare all systems with this one only: its name in the table."""

    tie: float = 1e-9
    """Values of a query that differ by at most this are neither win nor loss."""

    seed: int = 0
    """Of the bootstrap intervals and of the randomised tests."""

    per_query: bool = False
    """Put each query's values into the JSON."""

    json: Path | None = None
    """File for the results."""

    def __post_init__(self) -> None:
        if self.metrics == "help":
            return
        if not self.run:
            raise ConfigError("needs --run. See --help.")
        if (self.data is None) == (self.qrels is None):
            raise ConfigError("give either --data (with --split) or --qrels.")
        at_least(self, 0, "tie", "seed")
