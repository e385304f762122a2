"""Settings of `evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrodistill.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Settings of `python -m retrodistill.evaluate`."""

    run: tuple[Path, ...]
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    data: str | None = None
    """Collection with the judgements (or give --qrels)."""

    split: str = "test"
    """Split of --data."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of --data."""

    metrics: str = "ndcg@10,mrr@10,map,recall@100"
    """Comma-separated: name@cutoff(rel=level)."""

    test: Literal["t", "fisher", "none"] = "t"
    """Paired test between systems: Student's t, Fisher's randomisation, or none."""

    per_query: bool = False
    """Put each query's values into the JSON."""

    json: Path | None = None
    """File for the results."""

    def __post_init__(self) -> None:
        if (self.data is None) == (self.qrels is None):
            raise ConfigError("give either --data (with --split) or --qrels.")
