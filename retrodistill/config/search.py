"""Settings of `embed` and `search`."""

from dataclasses import dataclass, field
from pathlib import Path

from retrodistill.config.base import Precision, at_least
from retrodistill.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedConfig:
    """Settings of `python -m retrodistill.embed`."""

    data: str
    """Collection: beir:PATH, irds:ID, hf:ID or builtin:pydocs."""

    model: str
    """Student or other sentence-transformers model: a folder or a hub id."""

    out: Path
    """Index folder to write."""

    index: str = "flat"
    """exact, flat or hnsw."""

    max_tokens: int | None = None
    """Longest document, in tokens (default: the model's own limit)."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    precision: Precision = "auto"
    """Number type of the model's body."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_tokens")
        at_least(self, 4, "max_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """Settings of `python -m retrodistill.search`."""

    query: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Queries to answer on the terminal."""

    index: Path
    """Index folder written by `retrodistill.embed`."""

    data: str | None = None
    """Collection whose queries to search for (with --split), or whose texts to show."""

    split: str = "test"
    """Split of --data to search for."""

    k: int = 10
    """Documents to return for each query."""

    out: Path | None = None
    """Run folder to write (needs --data)."""

    precision: Precision = "auto"
    """Number type of the model's body."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        at_least(self, 1, "k")
        if not self.query and (self.data is None or self.out is None):
            raise ConfigError('give a query ("..."), or --data and --out to search for a split.')
        if self.query and self.out is not None:
            raise ConfigError("--out writes a run for the queries of --data: leave the query away.")
