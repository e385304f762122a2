"""Settings of `judge`."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from retrodistill.base.config.base import Precision, at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeSettings:
    """Settings of `judge_runs`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "judge": "judge",
        "pool": "depth",
        "models and machines": "max_tokens",
    }

    judge: str
    """Who judges: llm:NAME grades by a rubric; another teacher, as cross-encoder:MODEL, gives
    scores that --grades or --quantiles turn into grades."""

    rubric: Path | None = None
    """With llm:NAME, a text that says what each grade means, one a line, as "2: answers in part"
    (default: grades from 0, another topic, to 3, a full and clear answer)."""

    grades: str | None = None
    """Scores from which on the grade is 1, 2, ..., as 0.3,0.6,0.8; probabilities, where the
    teacher's scores are logits."""

    quantiles: str | None = None
    """Shares of the pool's scores below grade 1, 2, ..., as 0.5,0.8,0.95, instead of --grades."""

    option: tuple[str, ...] = ()
    """Setting of this judge: name=value, as url=, concurrency=, max_cost=, price_in=, price_out=
    of llm:NAME. May be given several times."""

    max_failed: float = 0.05
    """Largest share of pairs that may stay without a grade, for want of a usable answer; above
    it, it is an error. All answers are kept, and the same command asks for the rest."""

    depth: int = 10
    """Documents of each run to judge, from the top of each query's list."""

    max_queries: int | None = None
    """Judge this many queries, drawn at random (default: all)."""

    seed: int = 0
    """Seed of that draw."""

    max_tokens: int = 256
    """Longest pair of a model here, in tokens; the document's end is cut."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    precision: Precision = "auto"
    """Number type of the model's body."""

    def __post_init__(self) -> None:
        at_least(self, 1, "depth", "max_queries", "batch_tokens")
        at_least(self, 8, "max_tokens")
        at_least(self, 0, "seed", "max_failed")
        if self.max_failed >= 1:
            raise ConfigError(
                f"--max-failed is a share of the pairs, below 1, but it is {self.max_failed}."
            )
        if self.grades is not None and self.quantiles is not None:
            raise ConfigError("--grades and --quantiles exclude each other.")
        quantiles = self.numbers("quantiles")
        if quantiles and not 0 < quantiles[0] <= quantiles[-1] < 1:
            raise ConfigError(f"--quantiles lie between 0 and 1, but they are {self.quantiles}.")
        self.numbers("grades")

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return the thresholds of `grades` or `quantiles`, empty if there are none.

        Raises:
            ConfigError: they are not ascending numbers.

        """
        text = getattr(self, name)
        if text is None:
            return ()
        try:
            values = tuple(float(number) for number in text.split(","))
        except ValueError:
            values = ()
        finite = all(abs(value) < float("inf") for value in values)  # NaN is not
        ascending = all(low < high for low, high in pairwise(values))
        if not (values and finite and ascending):
            raise ConfigError(
                f"--{name} must be ascending numbers with commas between, as 0.3,0.6,0.8, but it "
                f"is {text!r}."
            )
        return values


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig(JudgeSettings):
    """Settings of `python -m retrodistill.judge`."""

    GROUPS: ClassVar[Mapping[str, str]] = {"runs and queries": "data", "output": "overwrite"}

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    run: tuple[Path, ...]
    """Run whose documents are judged: a run folder, a TREC, JSONL or Parquet file; repeatable."""

    out: Path
    """Folder to write, with the judgements in qrels/judged.tsv."""

    split: str | None = None
    """Split whose queries to judge, and whose human judgements to compare with (default: all
    queries of the runs, and no comparison)."""

    queries: str | None = None
    """File of queries beside those of --data, for runs that were made with it."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        super(JudgeConfig, self).__post_init__()
        if not self.run:
            raise ConfigError("needs --run: the runs whose documents are judged.")
