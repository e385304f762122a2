"""Settings of `distil`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from retrodistill.base.config.base import Precision, at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilConfig:
    """Settings of `python -m retrodistill.distil`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "documents and queries": "data",
        "student and teachers": "student",
        "labels and measuring": "split",
        "training": "depth",
        "models and machines": "max_tokens",
        "run": "dry_run",
    }

    data: str
    """Collection: docs:PATH, beir:PATH, irds:ID, hf:ID or builtin:pydocs. Queries and judgements
    are used where it has them; documents alone are enough."""

    out: Path
    """Folder of all that is made: plan.yaml, student/, index/, report.html, report.json."""

    queries: str | None = None
    """Query log: a file of queries without judgements, .txt (one a line), .jsonl, .tsv, .csv or
    .parquet; columns are named as in log.csv,text=COLUMN."""

    writer: tuple[str, ...] = ()
    """What writes queries from documents: titles (titles and headings), causal-lm:MODEL or
    llm:NAME; `none` for no generated query (default: titles, if there are any, and fewer than 200
    queries of a log or with labels)."""

    max_generated: int = 5000
    """Documents to write queries for, spread evenly over the collection."""

    student: str = "packaged:all-MiniLM-L6-v2"
    """Model to start from: a folder, a hub id (also ID@REVISION) or packaged:all-MiniLM-L6-v2."""

    keep_layers: tuple[int, ...] = ()
    """Layers of --student to keep, counted from 0, for a smaller and faster model: `0,2,5`. By
    default the model stays whole and its queries alone are trained, so that its documents need no
    new embedding."""

    teacher: tuple[str, ...] = ()
    """Teacher of the scores, once for each; their z-scores are averaged (default: bm25 and
    bi-encoder:STUDENT)."""

    split: str = "train"
    """Split with labels to learn from, if the collection has it."""

    dev_split: str = "dev"
    """Split to choose by, if the collection has it."""

    test_split: str = "test"
    """Split to measure on, if the collection has it; else held-out generated queries."""

    judge: str | None = None
    """Where the collection has no judgements to measure on: judge the systems' results with
    llm:NAME or another teacher."""

    held_out: int = 200
    """Documents whose generated queries are put aside to measure on (at most a fifth of them), or
    queries of the log to judge, where there are no judgements."""

    depth: int = 100
    """Candidates of each query that the teachers score."""

    perplexity: float = 2.3
    """Documents over which the teachers' list of a query is spread (median perplexity)."""

    steps: int = 300
    """Steps of each training, of 32 queries; a cut student takes half as many on the scores,
    of 16 queries with their documents."""

    learning_rate: float = 1e-4
    """Peak learning rate."""

    rounds: int = 1
    """Rounds at most: in each after the first, the new student retrieves candidates, pairs that are
    new are scored, and training goes on. It ends with the first round that brings no gain."""

    seed: int = 0
    """Seed of sampled documents, batches and dropout."""

    max_tokens: int = 256
    """Longest document, in tokens."""

    index: str = "flat"
    """Index to serve: exact, flat, sq8, hnsw, ivf, ... as in `embed`."""

    precision: Precision = "auto"
    """Number type of the models' bodies."""

    dry_run: bool = False
    """Write plan.yaml, print the steps with the estimate, and stop."""

    plan: Mapping[str, Any] = field(default_factory=dict, metadata={"file_only": True})
    """Step -> its settings, as plan.yaml has them. Those that were changed there are kept."""

    def __post_init__(self) -> None:
        at_least(self, 1, "max_generated", "held_out", "steps", "rounds")
        at_least(self, 2, "depth")
        at_least(self, 8, "max_tokens")
        at_least(self, 0, "learning_rate", "seed")
        if not self.perplexity > 1:
            raise ConfigError(f"--perplexity must be above 1, but it is {self.perplexity:g}.")
        if "none" in self.writer and len(self.writer) > 1:
            raise ConfigError("--writer none goes with no other --writer.")
        if "," in str(self.out):
            raise ConfigError(
                f"--out {self.out} has a comma, which ends a path in a collection's id. Rename it."
            )
        for setting in ("dev_split", "test_split"):
            if getattr(self, setting) == self.split:
                raise ConfigError(
                    f"--{setting.replace('_', '-')} {self.split} is trained on (--split): measure "
                    "on another split."
                )
