"""Settings of `audit` and `leakage`: what to check before a training or an evaluation."""

from dataclasses import dataclass
from pathlib import Path

from retrodistill.base.config.base import Precision, at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    """Settings of `python -m retrodistill.audit`."""

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    candidates: Path
    """First stage's run of the split, which each teacher reranks."""

    teacher: tuple[str, ...]
    """Teacher to audit: cross-encoder:MODEL, bi-encoder:MODEL, bm25, ...; repeatable."""

    split: str = "train"
    """Split whose labels the teachers are measured against."""

    student: str | None = None
    """Model to train, a folder or a hub id: every teacher should rank better than it."""

    queries: int = 100
    """Labelled queries to sample."""

    depth: int = 20
    """Candidates of each query to rerank."""

    seed: int = 0
    """Seed of the sample."""

    max_tokens: int = 256
    """Longest pair, in tokens; the document's end is cut."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    precision: Precision = "auto"
    """Number type of the models' bodies."""

    json: Path | None = None
    """File for the results."""

    def __post_init__(self) -> None:
        at_least(self, 1, "queries", "batch_tokens")
        at_least(self, 2, "depth")
        at_least(self, 8, "max_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class LeakageConfig:
    """Settings of `python -m retrodistill.leakage`."""

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    split: str = "train"
    """Split to train on."""

    test_split: str = "test"
    """Split to measure on, of which nothing should be in --split."""

    threshold: float = 0.8
    """Jaccard similarity from which two texts are near duplicates."""

    query_shingle: int = 1
    """Words in a shingle of a query."""

    shingle: int = 3
    """Words in a shingle of a document."""

    json: Path | None = None
    """File for the results."""

    def __post_init__(self) -> None:
        at_least(self, 1, "query_shingle", "shingle")
        at_least(self, 0.1, "threshold")
        if self.threshold > 1:
            raise ConfigError(f"--threshold must be at most 1, but it is {self.threshold}.")
        if self.split == self.test_split:
            raise ConfigError(
                f"--split and --test-split are both {self.split!r}. Give two different splits."
            )
