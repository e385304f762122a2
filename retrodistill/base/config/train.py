"""Settings of `train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrodistill.base.config.base import Precision, at_least, below_one
from retrodistill.base.errors import ConfigError

Positives = Literal["labels", "teacher"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """How to make a student and how to train it, whatever the data."""

    objective: str = "listwise-kl"
    """Weighted sum of losses, with settings in brackets:
    `listwise-kl(student_temperature=0.05,teacher_temperature=1) + 0.1*contrastive`."""

    student_kind: str = "bi-encoder"
    """What to train: bi-encoder, sparse, late-interaction, cross-encoder (which reads query and
    document together), or a kind of your own, `my_lab.kinds:KIND`."""

    keep_layers: tuple[int, ...] = ()
    """Layers of --student to keep, counted from 0: `0,2,5`."""

    width: int | None = None
    """Keep so many dimensions of the hidden vectors, the most important ones."""

    prune_vocabulary: bool = False
    """Keep only the words that the collection's documents and queries use."""

    pooling: Literal["mean", "cls", "last"] | None = None
    """How token vectors become one (default: as the model does it)."""

    query_prompt: str | None = None
    """What is put before each query (default: as the model has it)."""

    doc_prompt: str | None = None
    """What is put before each document (default: as the model has it)."""

    doc_student: str | None = None
    """Another model for the documents, a folder or a hub id: two towers. Prompts, dropout and
    adapters are for both; --keep-layers, --width, --prune-vocabulary and --pooling shape
    --student alone."""

    doc_keep_layers: tuple[int, ...] = ()
    """Layers of --doc-student to keep (default: all)."""

    freeze: Literal["query", "document"] | None = None
    """With --doc-student: the tower that stays as it is."""

    lora_rank: int = 0
    """Train only low-rank adapters of this rank, merged into the weights at the end (0: train
    the weights themselves)."""

    lora_alpha: float = 16.0
    """Scale of the adapters; they act with alpha / rank."""

    candidates_per_query: int = 8
    """Documents of one query in a batch, positives included."""

    positives: Positives = "labels"
    """Which documents are a query's positives: those that --split labels, or the teacher's best
    one, which then counts as labelled."""

    positives_per_query: int = 1
    """Positives of one query in a batch, if it has as many."""

    pool: int = 32
    """Draw negatives from this many best-scored candidates of the query."""

    query_order: Literal["shuffled", "clusters", "hard-first"] = "shuffled"
    """Order of the queries: at random, batches of one topic each, or the hardest first."""

    clusters: int | None = None
    """With --query-order clusters: number of topics (default: one per ten batches)."""

    negative_sampling: str = "uniform"
    """How a query's candidates are drawn from its pool: uniform, margin-bins, importance or simans;
    settings in brackets: `simans(a=0.5,b=-1)`."""

    unlabelled_split: tuple[str, ...] = ()
    """Train on the scored queries of this split as well, without its labels. Scored queries that
    other splits judge are skipped otherwise."""

    other_texts: bool = False
    """The ids of --scores and --preferences name other texts than --data on purpose, such as
    translations: do not compare them."""

    drop_weak_queries: float = 0.0
    """Leave out this share of the queries: those whose best teacher score is lowest."""

    false_negatives: float | None = None
    """Candidates that the teacher scores above this share of the positive's score are no
    negatives of contrastive losses (scores above 0 only)."""

    batch_size: int = 16
    """Queries in a batch; texts, where an objective compares vectors alone."""

    epochs: float = 1.0
    """Passes over the queries, or the texts."""

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

    cache_gradients: bool = False
    """Keep the activations of one pass at a time, and compute them again for the gradients:
    batches of any size in the memory of one pass, at about a third more time."""

    precision: Precision = "auto"
    """Number type of the encoder's body; losses are float32."""

    dims: tuple[int, ...] = ()
    """Matryoshka: train the first so many dimensions of the vectors as well, `192,96`. Where a
    teacher's vectors are the target, a cut vector is compared as if the rest were 0."""

    projection: Literal["keep", "drop"] = "keep"
    """Where the teacher's vectors have another dimension: keep the learned projection into
    their space as the student's last layer, or drop it after training."""

    queue: int = 0
    """Vectors of so many other documents that come with each batch (for ckd)."""

    average: Literal["none", "ema", "sma"] = "none"
    """Average the weights over the training: exponentially, or plainly over its last part."""

    average_decay: float = 0.99
    """With --average ema: what is kept of the average at each step."""

    average_start: float = 0.5
    """With --average sma: share of the steps after which the average begins."""

    dev_split: str | None = None
    """Measure by searching for the queries of this split, and keep the best weights."""

    dev_metric: str = "ndcg@10"
    """What to measure on --dev-split."""

    dev_queries: int | None = None
    """Measure with so many queries of --dev-split, drawn at random (default: all)."""

    dev_docs: Literal["all", "scored"] = "all"
    """Search all documents, or only those that --scores lists for these queries and the relevant
    ones: faster, and optimistic. A cross-encoder needs `scored`."""

    eval_steps: int = 0
    """Measure every so many steps (0: ten times in all)."""

    patience: int = 0
    """Stop after so many measurements without a better one (0: never)."""

    min_delta: float = 0.0
    """With --patience: smallest gain that counts; smaller ones add up until they do."""

    tracker: tuple[str, ...] = ()
    """Where to report losses to, by transformers.Trainer: tensorboard, wandb, mlflow, ..."""

    seed: int = 0
    """Seed of the order, the draw of negatives, and dropout."""

    save_steps: int = 0
    """Write a checkpoint every so many steps (0: none); `--resume` goes on from the last."""

    def __post_init__(self) -> None:
        at_least(self, 1, "pool", "batch_size", "batch_tokens", "width", "clusters")
        at_least(self, 1, "dev_queries")
        at_least(self, 2, "candidates_per_query")
        at_least(self, 4, "query_tokens", "doc_tokens")
        at_least(self, 0, "learning_rate", "warmup", "weight_decay", "dropout")
        at_least(self, 1, "positives_per_query")
        at_least(self, 0, "lora_rank", "queue", "eval_steps", "patience", "drop_weak_queries")
        at_least(self, 0, "average_decay", "average_start", "min_delta")
        below_one(self, "average_decay", "average_start", "warmup", "dropout")
        self._check_amounts()
        if self.freeze and not self.doc_student:
            raise ConfigError("--freeze needs --doc-student: one tower has to be trained.")
        if self.doc_keep_layers and not self.doc_student:
            raise ConfigError(
                "--doc-keep-layers needs --doc-student; --keep-layers cuts --student."
            )
        if self.average_start != 0.5 and self.average != "sma":
            raise ConfigError("--average-start needs --average sma.")
        if self.min_delta and not self.patience:
            raise ConfigError("--min-delta needs --patience: it is what patience waits for.")
        if (self.patience or self.eval_steps) and self.dev_split is None:
            raise ConfigError("--patience and --eval-steps need --dev-split.")

    @property
    def flags_of_scores(self) -> tuple[str, ...]:
        """Return the flags that go by teacher scores, as they are set."""
        flags = {
            f"--negative-sampling {self.negative_sampling}": self.negative_sampling != "uniform",
            f"--query-order {self.query_order}": self.query_order == "hard-first",
            "--positives teacher": self.positives == "teacher",
            "--drop-weak-queries": self.drop_weak_queries > 0,
            "--false-negatives": self.false_negatives is not None,
        }
        return tuple(flag for flag, used in flags.items() if used)

    def _check_amounts(self) -> None:
        """Raise ConfigError unless there is something to train, and numbers that fit each other."""
        if not self.epochs > 0:
            raise ConfigError(f"--epochs must be above 0, but it is {self.epochs}.")
        if self.max_steps != -1 and self.max_steps < 1:
            raise ConfigError(
                f"--max-steps must be at least 1, or -1 for --epochs, but it is {self.max_steps}."
            )
        for dim in self.dims:
            if dim < 1:
                raise ConfigError(f"--dims must be 1 or more each, but one is {dim}.")
        if self.positives_per_query >= self.candidates_per_query:
            raise ConfigError(
                f"--positives-per-query {self.positives_per_query} leaves no negative among "
                f"--candidates-per-query {self.candidates_per_query}."
            )
        if self.dev_split is not None and self.dev_split in self.unlabelled_split:
            raise ConfigError(
                f"--unlabelled-split {self.dev_split} is --dev-split as well: measure on queries "
                "that are not trained on."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(TrainSettings):
    """Settings of `python -m retrodistill.train`."""

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    student: str
    """Model to start from: a folder, a hub id (also ID@REVISION) or packaged:all-MiniLM-L6-v2."""

    queries: str | None = None
    """File of queries that --scores has beside those of --data."""

    out: Path
    """Folder of the trained model, in sentence-transformers format."""

    recipe: str | None = None
    """Published method whose settings to start from; `--list` shows them."""

    scores: Path | None = None
    """Score store or run: the candidates of each query, with the teacher's scores."""

    preferences: Path | None = None
    """Store of a pairwise teacher's preferences, for preference-kl."""

    vectors: str | None = None
    """Model whose vectors the student learns to match: a folder, a hub id or packaged:NAME."""

    split: str = "train"
    """Split whose labels say what is relevant."""

    resume: bool = False
    """Go on from the last checkpoint under --out."""

    overwrite: bool = False
    """Replace what is at --out."""
