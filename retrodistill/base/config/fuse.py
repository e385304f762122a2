"""Settings of `fuse`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrodistill.base.config.base import at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class FuseConfig:
    """Settings of `python -m retrodistill.fuse`."""

    run: tuple[Path, ...]
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    out: Path
    """Run folder to write."""

    method: Literal["sum", "max", "mnz", "rrf", "rerank"] = "sum"
    """sum: weighted mean of scores; max: the highest; mnz: the mean times the number of runs that
    hold the document; rrf: reciprocal ranks; rerank: the second run's documents in its order, then
    the rest of the first."""

    weights: str | None = None
    """One for each run, comma-separated; only their proportions count (default: equal)."""

    norm: Literal["none", "min-max", "z", "theoretical"] | None = None
    """What makes the scores of a query's list comparable; theoretical: min-max from the lowest
    score that there can be (default: min-max; with --tune what does best)."""

    minima: str | None = None
    """For theoretical: the lowest possible score of each run, comma-separated, as in 0,-1 for BM25
    and cosines (default: what a score store says)."""

    k: float = 60.0
    """Constant of rrf, 1 / (k + rank)."""

    depth: int | None = None
    """Documents to keep for each query (default: all)."""

    tune: tuple[Path, ...] = ()
    """The same systems' runs for the queries of --tune-split, in the order of --run: find the
    weights on them."""

    data: str | None = None
    """For --tune: collection with the judgements (or give --qrels)."""

    tune_split: str = "dev"
    """Split of --data whose judgements --tune is measured by."""

    qrels: Path | None = None
    """For --tune: TREC or BEIR judgement file, instead of --data."""

    metric: str = "ndcg@10"
    """What --tune makes as high as it can."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        at_least(self, 0, "k")
        at_least(self, 1, "depth")
        if self.tune and len(self.tune) != len(self.run):
            raise ConfigError(
                f"{len(self.tune)} --tune for {len(self.run)} --run: give one each, of the same "
                "systems in the same order."
            )
        if self.tune and self.weights is not None:
            raise ConfigError("--tune finds the weights: leave --weights away.")
        if bool(self.tune) != ((self.data is None) != (self.qrels is None)):
            raise ConfigError("--tune needs either --data (with --tune-split) or --qrels.")
