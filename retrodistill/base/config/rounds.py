"""Settings of `rounds`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from retrodistill.base.config.base import Precision, at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundsConfig:
    """Settings of `python -m retrodistill.rounds`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "start, queries and labels": "student",
        "teachers": "teacher",
        "training": "stage",
        "rounds": "rounds",
        "candidates": "depth",
        "models": "max_tokens",
    }

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    recipe: str
    """Published method to train by; `train --list` shows them."""

    out: Path
    """Folder of all that is made: student/, report.html, report.json, rounds/, scores/."""

    student: str = "packaged:all-MiniLM-L6-v2"
    """Model to start from: a folder, a hub id (also ID@REVISION) or packaged:all-MiniLM-L6-v2."""

    queries: str | None = None
    """File of further queries to learn from, without labels."""

    split: str = "train"
    """Split with labels to learn from, if the collection has it."""

    dev_split: str = "dev"
    """Split that decides which student is kept, and when to stop."""

    test_split: str | None = None
    """Split of the final table (default: --dev-split, which flatters what it has chosen)."""

    metric: str = "ndcg@10"
    """What decides on --dev-split."""

    teacher: tuple[str, ...] = ()
    """What scores the candidates; a stage may ask for one by a label: `LABEL=cross-encoder:MODEL`.
    Without any, a recipe that needs no scores has the candidates as hard negatives."""

    option: tuple[str, ...] = ()
    """Setting of a teacher: name=value, or LABEL.name=value. May be given several times."""

    comparer: str | None = None
    """Pairwise teacher, for recipes that learn from preferences: pairwise:MODEL, ..."""

    opponents: int = 4
    """Number of documents that the pairwise teacher compares each one with (0: all)."""

    teacher_tokens: int = 256
    """Longest input of a teacher, in tokens."""

    stage: tuple[str, ...] = ()
    """Stage of the recipe to train, in the recipe's order; repeatable (default: all)."""

    set_: tuple[str, ...] = ()
    """Setting of `train` that overrides the recipe's: `max_steps=200`, or of one stage alone,
    `STAGE.max_steps=200`. May be given several times."""

    rounds: int = 3
    """Rounds at most."""

    start: Literal["last", "first"] = "last"
    """What a round trains: the student of the round before, or --student again."""

    patience: int = 1
    """Stop after N rounds without a better student."""

    min_delta: float = 0.0
    """Smallest gain in --metric that counts for --patience."""

    depth: int = 100
    """Candidates that the student retrieves for each query."""

    candidates: Literal["all", "latest"] = "all"
    """Train on the candidates of all rounds so far, or on those of the last mining alone."""

    first_retriever: tuple[str, ...] = ()
    """What finds the first candidates: bm25, dense:MODEL, ...; several are fused (default: the
    student)."""

    max_tokens: int | None = None
    """Longest text of a student that retrieves, in tokens (default: the model's own limit)."""

    precision: Precision = "auto"
    """Number type of the models' bodies."""

    def __post_init__(self) -> None:
        at_least(self, 1, "rounds", "patience")
        at_least(self, 2, "depth")
        at_least(self, 0, "opponents", "min_delta")
        at_least(self, 8, "max_tokens", "teacher_tokens")
        for setting in ("dev_split", "test_split"):
            if getattr(self, setting) == self.split:
                raise ConfigError(
                    f"--{setting.replace('_', '-')} {self.split} is trained on (--split): measure "
                    "on another split."
                )
        if self.test_split == self.dev_split:
            raise ConfigError(
                f"--test-split {self.test_split} is --dev-split as well: what chooses a student "
                "cannot measure it. Leave it out, or name another split."
            )
