"""Settings of `mine`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from retrodistill.base.config.base import Executor, Precision, at_least, check_workers
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class MineSettings:
    """Settings of `mine_candidates`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "retrieval": "retriever",
        "labels": "drop_positives",
        "models and machines": "max_tokens",
    }

    retriever: tuple[str, ...] = ("bm25",)
    """bm25, lucene, dense:MODEL, sparse:MODEL or endpoint:URL; several are fused by reciprocal
    ranks."""

    depth: int = 100
    """Candidates to keep for each query."""

    rrf_k: float = 60.0
    """Constant k of reciprocal rank fusion, 1 / (k + rank)."""

    drop_positives: bool = False
    """Leave known relevant documents out (else they are kept where they are found)."""

    add_positives: bool = False
    """Put known relevant documents that no retriever found at the end of the list."""

    false_negative_ratio: float | None = None
    """Drop unlabelled candidates that score above this share of the best positive's score;
    needs one retriever of positive scale."""

    max_tokens: int | None = None
    """Longest text of the dense model, in tokens (default: the model's own limit)."""

    precision: Precision = "auto"
    """Number type of the dense model's body."""

    executor: Executor = "local"
    """Where a dense model encodes the documents: in this process, in several of this machine, or
    on a Ray cluster whose machines share the cache's file system (with flock)."""

    workers: int | None = None
    """Workers of the executor (default: one a GPU; without GPUs one, with Ray one a node)."""

    def __post_init__(self) -> None:
        at_least(self, 1, "depth")
        at_least(self, 4, "max_tokens")
        at_least(self, 0, "rrf_k", "false_negative_ratio")
        check_workers(self.executor, self.workers)
        elsewhere = ("bm25", "lucene", "endpoint")
        if self.executor != "local" and all(
            spec.partition(":")[0] in elsewhere for spec in self.retriever
        ):
            raise ConfigError(
                "--executor encodes documents: it needs --retriever dense:MODEL. The others are "
                "cheap in one process, or a server's work."
            )
        if self.drop_positives and self.add_positives:
            raise ConfigError("--drop-positives and --add-positives exclude each other.")


@dataclass(frozen=True, kw_only=True, slots=True)
class MineConfig(MineSettings):
    """Settings of `python -m retrodistill.mine`."""

    GROUPS: ClassVar[Mapping[str, str]] = {"queries": "data", "output": "overwrite"}

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    out: Path
    """Run folder to write."""

    split: str | None = None
    """Split whose queries to mine for; `all` is every query, judged or not (default: those of
    --queries, or else `train`)."""

    queries: str | None = None
    """File of queries, judged or not: .txt (one a line), .jsonl, .tsv, .csv or .parquet. They are
    mined for beside those of --split, if that is given. Give the same to `score` and `train`."""

    overwrite: bool = False
    """Replace what is at --out."""
