"""Settings of `score`."""

from dataclasses import dataclass
from pathlib import Path

from retrodistill.base.config.base import Executor, Precision, at_least, check_workers
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """Settings of `python -m retrodistill.score`."""

    out: Path
    """Score store to fill. An existing one is resumed: finished shards are not scored again."""

    data: str | None = None
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    queries: str | None = None
    """File of queries beside those of --data, for --candidates that were mined with it."""

    candidates: Path | None = None
    """Pairs to score: a run folder, a TREC, JSONL or Parquet run, or a file of triples."""

    teacher: str | None = None
    """Teacher: cross-encoder:MODEL, bi-encoder:MODEL, bm25, ... (README lists them), or
    module:CLASS:ARGUMENT for your own."""

    option: tuple[str, ...] = ()
    """Setting of this teacher: name=value. May be given several times."""

    preferences: bool = False
    """Store preferences between two documents instead of scores (a pairwise teacher)."""

    opponents: int = 4
    """With --preferences: number of documents that each one is compared with next in its list
    (0: all)."""

    verify: int | None = None
    """Score this many stored pairs again, and print the largest difference."""

    status: bool = False
    """Print how complete the store is and what it has cost."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    max_tokens: int = 256
    """Longest pair, in tokens; the document's end is cut."""

    shard_pairs: int = 4096
    """Pairs in one shard: the most that an interruption can lose."""

    precision: Precision = "auto"
    """Number type of the teacher's body; its head and the scores are float32."""

    executor: Executor = "local"
    """Where to score: in this process, in several processes, or on a Ray cluster whose machines
    share the file system (with flock) of --out."""

    workers: int | None = None
    """Workers of the executor (default: one per GPU; without GPUs one, with Ray one per node)."""

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_tokens", "shard_pairs", "verify")
        at_least(self, 8, "max_tokens")
        at_least(self, 0, "opponents")
        jobs = {
            "--teacher": self.teacher is not None,
            "--status": self.status,
        }
        if sum(jobs.values()) != 1:
            raise ConfigError(f"give one of {', '.join(jobs)}.")
        if self.data is None and not self.status:
            raise ConfigError("needs --data: the collection that the scores are of.")
        if self.teacher and (self.candidates is None) == (self.verify is None):
            raise ConfigError("--teacher needs --candidates, a run to score, or else --verify N.")
        check_workers(self.executor, self.workers)
        if self.executor != "local" and self.candidates is None:
            raise ConfigError("--executor scores: it needs --teacher and --candidates.")
