"""Settings of `evaluate`, and those that `report` and `benchmark` share with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from retrodistill.base.config.base import at_least
from retrodistill.base.errors import ConfigError

MIN_COSINE = 0.999
"""What number types differ by is less, and what a wrong prompt does is more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """How systems are measured and compared."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "measures": "metrics",
        "significance": "test",
        "training data": "trained_on",
    }

    metrics: str = "ndcg@10,mrr@10,map,recall@100"
    """Comma-separated: name@cutoff(key=value,...), as in ndcg@10 or map(rel=2); `evaluate --metrics
    help` lists them. A report's plots and lists of queries follow the first."""

    ignore_identical_ids: bool = False
    """Drop documents that have the id of their query, as BEIR does."""

    judged_only: bool = False
    """Drop documents without a judgement, and measure the condensed lists."""

    test: Literal["t", "fisher", "none"] = "t"
    """Paired test between systems: Student's t, Fisher's randomisation, or none."""

    correction: Literal["holm", "tukey", "none"] = "holm"
    """Correction of p for the number of comparisons: Holm's, Tukey's randomised HSD over all
    systems, or none."""

    baseline: str | None = None
    """Compare all systems with this one only: its name in the table (default: all pairs in the
    tests, the first --run in a report's plots)."""

    tie: float = 1e-9
    """Values of a query that differ by at most this are neither win nor loss."""

    seed: int = 0
    """Seed of the bootstrap intervals, the randomised tests, and the pairs that a report plots."""

    trained_on: tuple[str, ...] = ()
    """Split of --data, or student folder, that systems were trained on, in addition to their
    records; repeatable. Systems are also measured on the queries that training has not seen."""

    near_double: float = 0.6
    """Jaccard similarity of the words of two queries from which they are near doubles."""

    def __post_init__(self) -> None:
        at_least(self, 0, "tie", "seed")
        if not 0 < self.near_double <= 1:
            raise ConfigError(
                f"--near-double must lie above 0 and up to 1, but it is {self.near_double}."
            )

    def measuring(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, for a result card."""
        names = (
            "metrics",
            "ignore_identical_ids",
            "judged_only",
            "test",
            "correction",
            "baseline",
            "tie",
            "seed",
        )
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureSettings(EvaluationSettings):
    """How systems are measured and compared, and against which judgements."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "judgements": "data",
        "explanations": "explain",
    }

    data: str | None = None
    """Collection with the judgements (or give --qrels); `report` shows its texts too."""

    split: str = "test"
    """Split of --data."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of --data."""

    explain: tuple[str, ...] = ()
    """Student whose scores are explained, word by word, and compared with the explanations of
    --explain-teacher: NAME=MODEL or MODEL, such as kl=bi-encoder:students/kl; once for each."""

    explain_teacher: str | None = None
    """Model that the students of --explain are compared with, such as cross-encoder:MODEL."""

    explain_pairs: int = 20
    """Judged queries, drawn at random, that are explained with their best judged document. Each
    model scores a pair once for every word of the query and, up to 64, of the document."""

    def __post_init__(self) -> None:
        EvaluationSettings.__post_init__(self)
        if (self.data is None) == (self.qrels is None):
            raise ConfigError("give either --data (with --split) or --qrels.")
        at_least(self, 1, "explain_pairs")
        if bool(self.explain) != bool(self.explain_teacher):
            raise ConfigError(
                "--explain STUDENT and --explain-teacher TEACHER compare two models: give both."
            )
        if self.explain and self.data is None:
            raise ConfigError("--explain needs --data: the texts of queries and documents.")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(MeasureSettings):
    """Settings of `python -m retrodistill.evaluate`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "runs": "run",
        "served models": "endpoint",
        "output": "per_query",
    }

    run: tuple[Path, ...] = ()
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    teacher: Path | None = None
    """Score store or run of a teacher: also measure how closely each system follows it."""

    endpoint: tuple[str, ...] = ()
    """Served model to measure on the queries of --split; once for each. URL is an OpenAI-compatible
    embeddings endpoint or a server's /search, with options after commas, as in
    URL/v1,model=NAME or URL/search,method=hybrid,rerank=50. NAME=URL names it in the table."""

    depth: int | None = None
    """Documents of a query to ask an --endpoint for (default: the highest cutoff of --metrics, at
    least 100)."""

    against: str | None = None
    """Compare vectors of each --endpoint with those of this local model first, on a sample of
    texts; below --min-cosine the exit status is 1."""

    min_cosine: float = MIN_COSINE
    """Least cosine of a served and a local vector of the same text."""

    per_query: bool = False
    """Include each query's values in the JSON."""

    json: Path | None = None
    """File for the results."""

    card: Path | None = None
    """File for a result card (YAML): the numbers, and what it takes to reproduce them."""

    def __post_init__(self) -> None:
        if self.metrics == "help":
            return
        if not (self.run or self.endpoint):
            raise ConfigError("needs --run or --endpoint. See --help.")
        MeasureSettings.__post_init__(self)
        at_least(self, 1, "depth")
        if not -1 <= self.min_cosine <= 1:
            raise ConfigError(f"--min-cosine must be from -1 to 1, but it is {self.min_cosine}.")
        if self.endpoint and self.data is None:
            raise ConfigError("--endpoint needs --data: documents and queries, beside judgements.")
        if self.endpoint and self.card is not None:
            raise ConfigError(
                "a card names runs that can be read again, which an --endpoint is not: write its "
                "run with `search --retriever endpoint:URL --out FOLDER`, and give it with --run."
            )
        for name in ("depth", "against"):
            if getattr(self, name) is not None and not self.endpoint:
                raise ConfigError(f"--{name} is for an --endpoint: give one.")
        if self.against is None and self.min_cosine != MIN_COSINE:
            raise ConfigError("--min-cosine needs --against, the local model.")
