"""The settings of every command: one frozen dataclass a verb.

A field is a flag (`max_tokens` is `--max-tokens`), the string below it is its help. A field of
type `tuple[str, ...]` may be given several times. `retrodistill.command` reads them.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from retrodistill.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]


def at_least(config: object, low: float, *names: str) -> None:
    """Raise ConfigError unless each of these fields is at least `low`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= low:  # NaN too
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} must be at least {low:g}, but it is {value}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class MineConfig:
    """Settings of `python -m retrodistill.mine`."""

    data: str
    """Collection: beir:PATH, irds:ID, hf:ID or builtin:pydocs."""

    out: Path
    """Run folder to write."""

    split: str = "train"
    """Queries of which split to mine for."""

    retriever: tuple[str, ...] = ("bm25",)
    """bm25, lucene, or dense:MODEL; several are fused by reciprocal ranks."""

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

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        at_least(self, 1, "depth")
        at_least(self, 4, "max_tokens")
        at_least(self, 0, "rrf_k", "false_negative_ratio")
        if self.drop_positives and self.add_positives:
            raise ConfigError("--drop-positives and --add-positives exclude each other.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """Settings of `python -m retrodistill.score`."""

    out: Path
    """Score store. Finished shards found there are not scored again."""

    data: str | None = None
    """Collection: beir:PATH, irds:ID, hf:ID or builtin:pydocs."""

    candidates: Path | None = None
    """What to score: a run folder, a TREC, JSONL or Parquet run, or a file of triples."""

    teacher: str | None = None
    """Who scores: cross-encoder:MODEL, bi-encoder:MODEL, bm25, ...; README lists them."""

    option: tuple[str, ...] = ()
    """A setting of this teacher's own: name=value."""

    preferences: bool = False
    """Store preferences between two documents instead of scores (a pairwise teacher)."""

    opponents: int = 4
    """With --preferences: how many others each document is compared with (0: all)."""

    ensemble: tuple[Path, ...] = ()
    """Instead of a teacher: score stores or runs to make one of."""

    combine: Literal["z", "mean", "minmax", "rrf"] = "z"
    """How: mean of z-scores of each query, of raw scores, of scores in 0 to 1 between the 1st
    and 99th percentile, or of reciprocal ranks."""

    weight: tuple[float, ...] = ()
    """One weight for each --ensemble, in order (default: equal)."""

    query_weight: Literal["none", "confidence", "agreement"] = "none"
    """Weigh each --ensemble query by query: by how sure it is, or by its rank of what --split
    calls relevant."""

    import_: Path | None = None
    """Instead of a teacher: scores that somebody has published, in --format."""

    export: Path | None = None
    """Write the scores of --out to this file, in --format."""

    format: str | None = None
    """Format of --import or --export; README lists them (--import: default by its content)."""

    differing: Literal["refuse", "mean"] = "refuse"
    """What becomes of a pair that --import gives several scores."""

    scale: str = "unknown"
    """What imported scores are: logit, probability, cosine, dot, maxsim, bm25, ..."""

    split: str = "train"
    """Split whose labels say what is relevant, for an --export that needs to know."""

    verify: int | None = None
    """Score this many stored pairs again, and tell the largest difference."""

    status: bool = False
    """Tell how far the store is and what it has cost."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    max_tokens: int = 256
    """Longest pair, in tokens; the document's end is cut."""

    shard_pairs: int = 4096
    """Pairs in one shard: what a kill can cost."""

    precision: Precision = "auto"
    """Number type of the teacher's body; its head and the scores are float32."""

    executor: Literal["local", "processes", "ray"] = "local"
    """Where to score: in this process, in several of this machine, or on a Ray cluster whose
    machines share the file system (with flock) of --out."""

    workers: int | None = None
    """Workers of the executor (default: one a GPU; without GPUs one, with Ray one a node)."""

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_tokens", "shard_pairs", "verify", "workers")
        at_least(self, 8, "max_tokens")
        at_least(self, 0, "opponents")
        jobs = {
            "--teacher": self.teacher is not None,
            "--ensemble": bool(self.ensemble),
            "--import": self.import_ is not None,
            "--export": self.export is not None,
            "--status": self.status,
        }
        if sum(jobs.values()) != 1:
            raise ConfigError(f"give one of {', '.join(jobs)}.")
        if self.data is None and not self.status and self.export is None:
            raise ConfigError("needs --data: the collection that the scores are of.")
        if self.teacher and (self.candidates is None) == (self.verify is None):
            raise ConfigError("--teacher needs --candidates, a run to score, or else --verify N.")
        if self.export is not None and self.format is None:
            raise ConfigError("--export needs --format.")
        if self.executor == "local" and self.workers is not None:
            raise ConfigError("--workers needs --executor processes or ray.")
        if self.executor != "local" and self.candidates is None:
            raise ConfigError("--executor scores: it needs --teacher and --candidates.")
        if self.weight and len(self.weight) != len(self.ensemble):
            raise ConfigError(
                f"{len(self.weight)} --weight for {len(self.ensemble)} --ensemble: give one each."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    """Settings of `python -m retrodistill.audit`."""

    data: str
    """Collection: beir:PATH, irds:ID, hf:ID or builtin:pydocs."""

    candidates: Path
    """First stage's run of the split: what each teacher reranks."""

    teacher: tuple[str, ...]
    """Who shall be audited: cross-encoder:MODEL, bi-encoder:MODEL, bm25, ...; several times."""

    split: str = "train"
    """Split with the labels to measure against."""

    student: str | None = None
    """Model that shall learn, a folder or a hub id: no teacher should be worse than it."""

    queries: int = 100
    """Labelled queries to draw."""

    depth: int = 20
    """Candidates of each query that are reranked."""

    seed: int = 0
    """Seed of the draw."""

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
class TrainConfig:
    """Settings of `python -m retrodistill.train`."""

    data: str
    """Collection: beir:PATH, irds:ID, hf:ID or builtin:pydocs."""

    student: str
    """Model to start from: a folder or a hub id."""

    out: Path
    """Folder of the trained model, in sentence-transformers format."""

    scores: Path | None = None
    """Score store or run: the candidates of each query, with the teacher's scores."""

    vectors: str | None = None
    """Model whose vectors the student shall come near to, for embed-distill: folder or hub id."""

    split: str = "train"
    """Split whose labels say what is relevant."""

    student_kind: Literal["bi-encoder", "cross-encoder"] = "bi-encoder"
    """What to train; a cross-encoder learns from labels or from scores."""

    objective: str = "listwise-kl"
    """Weighted sum of losses: `listwise-kl + 0.1*contrastive`; settings in brackets:
    `listwise-kl(temperature=0.05,teacher_temperature=1)`."""

    keep_layers: str | None = None
    """Layers of the model to keep, counted from 0: `0,2,5`."""

    candidates_per_query: int = 8
    """Documents of one query in a batch, the positive included."""

    pool: int = 32
    """Draw negatives from this many best-scored candidates of the query."""

    batch_size: int = 16
    """Queries in a batch."""

    epochs: float = 1.0
    """Passes over the queries."""

    max_steps: int = -1
    """Stop after this many steps (-1: as many as the epochs need)."""

    learning_rate: float = 3e-5
    """Peak learning rate."""

    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0."""

    weight_decay: float = 0.01
    """AdamW's weight decay."""

    dropout: float | None = None
    """Dropout probability in the body (default: as the model has it)."""

    query_tokens: int = 64
    """Longest query, in tokens."""

    doc_tokens: int = 160
    """Longest document, or pair for a cross-encoder, in tokens."""

    batch_tokens: int = 4096
    """Padded tokens of one pass through the encoder."""

    precision: Precision = "auto"
    """Number type of the encoder's body; losses are float32."""

    seed: int = 0
    """Seed of the order, the draw of negatives, and dropout."""

    save_steps: int = 0
    """Write a checkpoint every so many steps (0: none); `--resume` goes on from the last."""

    resume: bool = False
    """Go on from the last checkpoint under --out."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        at_least(self, 1, "pool", "batch_size", "batch_tokens")
        at_least(self, 2, "candidates_per_query")
        at_least(self, 4, "query_tokens", "doc_tokens")
        at_least(self, 0, "epochs", "learning_rate", "warmup", "weight_decay", "dropout")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Settings of `python -m retrodistill.evaluate`."""

    run: tuple[Path, ...]
    """Run folder, score store, or TREC, JSONL or Parquet run; once for each system."""

    data: str | None = None
    """Collection with the judgements (or give --qrels)."""

    split: str = "test"
    """Split of --data."""

    qrels: Path | None = None
    """TREC or BEIR judgement file, instead of --data."""

    metrics: str = "ndcg@10,mrr@10,map,recall@100"
    """Comma-separated: name@cutoff(rel=level)."""

    test: Literal["t", "fisher", "none"] = "t"
    """Paired test between systems: Student's t, Fisher's randomisation, or none."""

    per_query: bool = False
    """Put each query's values into the JSON."""

    json: Path | None = None
    """File for the results."""

    def __post_init__(self) -> None:
        if (self.data is None) == (self.qrels is None):
            raise ConfigError("give either --data (with --split) or --qrels.")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartConfig:
    """Settings of `python -m retrodistill.quickstart`."""

    data: str = "builtin:pydocs"
    """Collection with train, dev and test queries."""

    model: str | None = None
    """Model to start from (default: all-MiniLM-L6-v2 from its PyPI package)."""

    out: Path = Path("quickstart")
    """Folder for all that is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Settings of `python -m retrodistill.doctor`."""

    json: bool = False
    """Print the findings as JSON."""


def as_dict(config: object) -> dict[str, object]:
    """Return a config as plain values, paths as strings, for manifests and --print-config."""
    plain: dict[str, object] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if isinstance(value, tuple):
            value = [str(part) if isinstance(part, Path) else part for part in value]
        plain[item.name.rstrip("_")] = str(value) if isinstance(value, Path) else value
    return plain
