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
    """Run folder to write; with --as-store, score store."""

    as_store: bool = False
    """Write a score store for `train` instead of a run; needs --data."""

    method: Literal["sum", "max", "mnz", "rrf", "rerank"] = "sum"
    """sum: weighted mean of scores; max: the highest; mnz: the mean times the number of runs that
    hold the document; rrf: reciprocal ranks; rerank: the second run's documents in its order, then
    the rest of the first."""

    norm: Literal["none", "min-max", "percentiles", "z", "theoretical"] | None = None
    """How scores become comparable. min-max: 0 to 1 in each list; percentiles: 0 to 1 between the
    1st and 99th percentile of the run's whole table; z: mean 0 and deviation 1 in each list;
    theoretical: 0 is the lowest possible score, 1 the list's highest; none: raw scores (default:
    min-max; with --as-store z; with --tune what does best)."""

    pairs: Literal["all", "shared"] | None = None
    """all: a document that a list lacks counts as its lowest one; shared: only documents that all
    runs hold are kept, normalised among each other (default: all; with --as-store shared)."""

    weight: tuple[float, ...] = ()
    """One for each --run, in order; only their proportions count (default: equal)."""

    query_weight: Literal["none", "confidence", "agreement"] = "none"
    """Weigh the runs query by query: by how certain each is, or by the reciprocal rank that each
    gives to a document that is judged relevant."""

    minimum: tuple[float, ...] = ()
    """For theoretical: the lowest possible score of each --run, in order, such as 0 for BM25 and -1
    for cosines (default: what a score store's scale says)."""

    k: float = 60.0
    """Constant of rrf, 1 / (k + rank)."""

    depth: int | None = None
    """Documents to keep for each query (default: all)."""

    tune: tuple[Path, ...] = ()
    """The same systems' runs for the queries of --split, in the order of --run: find the weights
    on them."""

    metric: str = "ndcg@10"
    """What --tune maximises."""

    data: str | None = None
    """Collection: of its texts with --as-store, of judgements for --tune or agreement."""

    queries: str | None = None
    """For --as-store: file of queries beside those of --data."""

    split: str | None = None
    """Split of --data with the judgements (default: dev for --tune, train for agreement)."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of those of --data."""

    overwrite: bool = False
    """Replace the run at --out."""

    def __post_init__(self) -> None:
        at_least(self, 0, "k")
        at_least(self, 1, "depth")
        for flag, values in (
            ("--tune", self.tune),
            ("--weight", self.weight),
            ("--minimum", self.minimum),
        ):
            if values and len(values) != len(self.run):
                raise ConfigError(
                    f"{len(values)} {flag} for {len(self.run)} --run: give one for each, of the "
                    "same systems in the same order."
                )
        if self.tune:
            self._check_tuning()
        self._check_judgements()
        if self.as_store and self.overwrite:
            raise ConfigError(
                "--overwrite replaces a run. A score store resumes: remove its folder to write it "
                "from scratch."
            )

    def _check_tuning(self) -> None:
        for flag, is_set in (
            ("--weight", bool(self.weight)),
            ("--query-weight", self.query_weight != "none"),
            ("--pairs shared", self.pairs == "shared"),
        ):
            if is_set:
                raise ConfigError(f"--tune finds one weight for each run: omit {flag}.")
        if self.as_store:
            raise ConfigError(
                "--tune writes a run. For a score store, tune first, then give the weights that it "
                "prints as --weight."
            )

    def _check_judgements(self) -> None:
        by_labels = self.query_weight == "agreement"
        flag = "--tune" if self.tune else "--query-weight agreement"
        if (self.tune or by_labels) and self.data is None and self.qrels is None:
            raise ConfigError(f"{flag} needs judgements: give --data (with --split) or --qrels.")
        if self.qrels is not None and not (self.tune or by_labels):
            raise ConfigError("--qrels needs --tune or --query-weight agreement.")
        if self.as_store:
            if self.data is None:
                raise ConfigError("--as-store needs --data: the collection of the scored texts.")
        elif self.data is not None and not (self.tune or by_labels):
            raise ConfigError("--data needs --tune, --query-weight agreement or --as-store.")
        elif self.data is not None and self.qrels is not None:
            raise ConfigError("give either --data (with --split) or --qrels.")
        if self.queries is not None and not self.as_store:
            raise ConfigError("--queries needs --as-store.")
