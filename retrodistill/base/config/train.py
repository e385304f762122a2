"""Settings of `train`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from retrodistill.base.config.base import Precision, at_least, below_one
from retrodistill.base.errors import ConfigError

Positives = Literal["labels", "labels-or-teacher", "teacher"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """How to make a student and how to train it, independent of the data."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "objective and student": "objective",
        "candidates": "candidates_per_query",
        "optimisation": "batch_size",
        "dimensions and averaging": "dims",
        "measuring while training": "dev_split",
        "run": "tracker",
    }

    objective: str = "listwise-kl"
    """Weighted sum of losses, with settings in brackets:
    `listwise-kl(student_temperature=0.05,teacher_temperature=1) + 0.1*contrastive`."""

    student_kind: str = "bi-encoder"
    """What to train: bi-encoder, sparse, late-interaction, cross-encoder (which reads query and
    document together), causal-reranker (a language model that says yes or no), or a kind of your
    own, `my_lab.kinds:KIND`."""

    keep_layers: tuple[int, ...] = ()
    """Layers of --student to keep, counted from 0: `0,2,5`."""

    width: int | None = None
    """Hidden size to keep (the most important dimensions)."""

    prune_vocabulary: bool = False
    """Keep only the vocabulary that the collection's documents and queries use."""

    pooling: Literal["mean", "cls", "last"] | None = None
    """Pooling of token vectors (default: the model's own)."""

    experts: int | None = None
    """Experts of a new head behind the pooling, each weighted by a gate (2 or more; default: no
    head)."""

    query_prompt: str | None = None
    """Text before each query (default: the model's own prompt)."""

    doc_prompt: str | None = None
    """Text before each document (default: the model's own prompt)."""

    pair_prompt: str | None = None
    """Prompt of a causal reranker, with `{query}` and `{doc}` (default: the model's own). It is
    saved with the student."""

    answers: tuple[str, ...] = ()
    """The two words that a causal reranker's score compares, as they follow the prompt: for yes,
    then for no (default: the model's own)."""

    doc_student: str | None = None
    """Another model for the documents, a folder or a hub id: two towers. Prompts, dropout and
    adapters apply to both; --keep-layers, --width, --prune-vocabulary and --pooling to --student
    alone."""

    doc_keep_layers: tuple[int, ...] = ()
    """Layers of --doc-student to keep (default: all)."""

    freeze: Literal["query", "document"] | None = None
    """The tower that is not trained. With `document`, the documents' vectors stay what they are
    and are computed once: an index of them serves the trained student as well. Without
    --doc-student, documents are read by --student as it is, and queries by a trained copy of it."""

    compare: Literal["batch", "collection"] = "batch"
    """What losses over the batch (contrastive, listwise-kl-in-batch, m3-kd, ...) compare a query's
    candidates with: the documents of its batch, or all documents of the collection, which needs
    --freeze document."""

    teacher_perplexity: float | None = None
    """Set the losses' teacher temperature such that the teacher spreads a query's list over this
    many documents (median perplexity of the lists)."""

    lora_rank: int = 0
    """Train only low-rank adapters of this rank, merged into the weights at the end (0: train
    the weights themselves)."""

    lora_alpha: float = 16.0
    """Scale of the adapters; they act with alpha / rank."""

    candidates_per_query: int = 8
    """Documents of one query in a batch, positives included."""

    positives: Positives = "labels"
    """Which documents are a query's positives: those that --split labels, or the teacher's best
    one, which then counts as labelled; with `labels-or-teacher`, the teacher's best one only of
    queries without a label."""

    positives_per_query: int = 1
    """Positives of one query in a batch, if it has that many."""

    pool: int = 32
    """Sample negatives from the N best-scored candidates of the query."""

    query_order: Literal["shuffled", "clusters", "hard-first"] = "shuffled"
    """Order of the queries: at random, batches of one topic each, or the hardest first."""

    clusters: int | None = None
    """With --query-order clusters: number of topics (default: one per ten batches)."""

    negative_sampling: str = "uniform"
    """How negatives are sampled from a query's pool: uniform, margin-bins, importance or simans;
    settings in brackets: `simans(a=0.5,b=-1)`."""

    unlabelled_split: tuple[str, ...] = ()
    """Train on the scored queries of this split as well, without its labels. By default, scored
    queries that other splits judge are skipped."""

    other_texts: bool = False
    """Accept --scores and --preferences that were made from other texts than those that the
    teacher reads. For translations and rewrites, name those texts instead: --teacher-view."""

    student_ranks: tuple[int, ...] = ()
    """Train only on queries of which the teacher ranks a labelled document first and the student,
    before its training, from the first to the second of these ranks: `2,15`."""

    label_above: float | None = None
    """Pseudo-labels: candidates that the teacher scores above this probability are positives."""

    label_below: float | None = None
    """With --label-above: only candidates below this probability are negatives; those between the
    two are dropped."""

    drop_weak_queries: float = 0.0
    """Skip this share of the queries: those whose best teacher score is lowest."""

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

    teacher_learning_rate: float | None = None
    """Peak learning rate of --joint-teacher (default: --learning-rate)."""

    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0."""

    weight_decay: float = 0.01
    """AdamW's weight decay."""

    dropout: float | None = None
    """Dropout probability in the body (default: as the model has it)."""

    query_tokens: int = 64
    """Longest query, in tokens."""

    doc_tokens: int = 160
    """Longest document, in tokens; pair for a cross-encoder, prompt for a causal reranker."""

    batch_tokens: int = 4096
    """Padded tokens of one pass through the encoder."""

    cache_gradients: bool = False
    """Keep the activations of one pass at a time, and recompute them for the gradients: batches
    of any size in the memory of one pass, at about a third more time."""

    precision: Precision = "auto"
    """Number type of the encoder's body; losses are float32."""

    dims: tuple[int, ...] = ()
    """Matryoshka: train the first N dimensions of the vectors as well, `192,96`. Where a teacher's
    vectors are the target, a cut vector is compared as if the rest were 0."""

    projection: Literal["keep", "drop"] = "keep"
    """Where the teacher's vectors have another dimension: keep the learned projection into
    their space as the student's last layer, or drop it after training."""

    queue: int = 0
    """Number of other documents whose vectors come with each batch (for ckd)."""

    vector_tokens: int | None = None
    """Longest text that the model of --vectors reads, in tokens (default: its own limit)."""

    states_layers: tuple[int, ...] = ()
    """Layers of the model of --states that the student's last ones match, `4,8,12`; 0 is its
    embeddings (default: all layers of the student, and its embeddings, evenly spread)."""

    teacher_tokens: int = 256
    """Longest input of the model of --teacher or --joint-teacher, in tokens."""

    teacher_precision: Precision = "auto"
    """Number type of the body of the model of --teacher or --joint-teacher."""

    teacher_pairs: int = 4096
    """Most pairs of a step that --teacher may read, if it reads pairs as a cross-encoder does: the
    queries of a batch times its documents."""

    ema: float | None = None
    """Share that each step keeps of an exponential average of the student's weights, such as 0.99,
    which is a live teacher: `batch-kl(teacher_batch_scores=ema.batch_scores)`."""

    inner_learning_rate: float | None = None
    """Meta-learning (first-order MAML): the loss of each part of a batch but the first is taken at
    weights that --inner-steps steps of plain gradient descent at this rate have adapted to the part
    before it. The parts read --meta-view; 0 adapts nothing (default: no meta-learning)."""

    inner_steps: int = 1
    """With --inner-learning-rate: number of steps that adapt the weights to a part."""

    average: Literal["none", "ema", "sma"] = "none"
    """Average the weights over the training: exponentially, or evenly over its last part."""

    average_decay: float = 0.99
    """With --average ema: share of the average that each step keeps."""

    average_start: float = 0.5
    """With --average sma: share of the steps before the average begins."""

    dev_split: str | None = None
    """Measure by searching for the queries of this split, and keep the best weights."""

    dev_metric: str = "ndcg@10"
    """What to measure on --dev-split."""

    dev_queries: int | None = None
    """Number of queries of --dev-split to measure with, drawn at random (default: all)."""

    dev_docs: Literal["all", "scored"] = "all"
    """Search all documents, or only those that --scores lists for these queries and the relevant
    ones: faster, and optimistic. Students that rerank need `scored`."""

    eval_steps: int = 0
    """Steps between measurements (0: measure ten times in all)."""

    patience: int = 0
    """Stop after N measurements without a better one (0: never)."""

    min_delta: float = 0.0
    """With --patience: smallest gain that counts; smaller ones add up until they do."""

    tracker: tuple[str, ...] = ()
    """Trackers of transformers.Trainer to report losses to: tensorboard, wandb, mlflow, ..."""

    seed: int = 0
    """Seed of the query order, the sampling of negatives, and dropout."""

    save_steps: int = 0
    """Steps between checkpoints (0: none); `--resume` resumes from the last."""

    def __post_init__(self) -> None:
        at_least(self, 1, "pool", "batch_size", "batch_tokens", "width", "clusters")
        at_least(self, 1, "dev_queries", "teacher_pairs")
        at_least(self, 2, "candidates_per_query", "experts")
        at_least(self, 4, "query_tokens", "doc_tokens", "vector_tokens", "teacher_tokens")
        at_least(
            self, 0, "learning_rate", "teacher_learning_rate", "warmup", "weight_decay", "dropout"
        )
        at_least(self, 1, "positives_per_query")
        at_least(self, 0, "lora_rank", "queue", "eval_steps", "patience", "drop_weak_queries")
        at_least(self, 0, "inner_learning_rate")
        at_least(self, 1, "inner_steps")
        at_least(self, 0, "average_decay", "average_start", "min_delta")
        below_one(self, "ema", "average_decay", "average_start", "warmup", "dropout")
        self._check_amounts()
        self._check_meta()
        if self.ema is not None and not self.ema > 0:
            raise ConfigError(f"--ema must be above 0, but it is {self.ema}.")
        if self.ema is not None and self.freeze == "document":
            raise ConfigError(
                "--ema reads the documents of a batch with averaged weights, and --freeze document "
                "reads none. Omit one of the two."
            )
        if self.freeze == "query" and not self.doc_student:
            raise ConfigError("--freeze query needs --doc-student: the tower that is trained.")
        if self.compare == "collection" and self.freeze != "document":
            raise ConfigError(
                "--compare collection needs --freeze document: the vectors of all documents can "
                "be compared with only if they stay what they are."
            )
        if self.experts is not None and (self.freeze or self.doc_student):
            raise ConfigError(
                "--experts is a head for queries and documents alike: omit --freeze and "
                "--doc-student."
            )
        if len(self.answers) not in (0, 2):
            raise ConfigError("--answers are two words, for yes and then for no, each a flag.")
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
        """Return the flags in use that need teacher scores, with their values."""
        flags = {
            f"--negative-sampling {self.negative_sampling}": self.negative_sampling != "uniform",
            f"--query-order {self.query_order}": self.query_order == "hard-first",
            "--teacher-perplexity": self.teacher_perplexity is not None,
            f"--positives {self.positives}": self.positives != "labels",
            "--student-ranks": bool(self.student_ranks),
            "--label-above": self.label_above is not None,
            "--drop-weak-queries": self.drop_weak_queries > 0,
            "--false-negatives": self.false_negatives is not None,
        }
        return tuple(flag for flag, used in flags.items() if used)

    def _check_meta(self) -> None:
        """Raise ConfigError for settings that do not go with adapted weights."""
        if self.inner_learning_rate is None:
            if self.inner_steps != 1:
                raise ConfigError("--inner-steps needs --inner-learning-rate: how far a step goes.")
            return
        reasons = {
            "--cache-gradients": (
                self.cache_gradients,
                "recomputes activations after the adapted weights are gone",
            ),
            "--freeze": (self.freeze, "keeps vectors of a tower that is not adapted"),
            "--ema": (self.ema, "reads a batch in the texts of --data alone"),
            "--queue": (self.queue, "is of --vectors, whose model reads --teacher-view alone"),
            "--prune-vocabulary": (self.prune_vocabulary, "keeps the words of --data alone"),
        }
        for flag, (used, reason) in reasons.items():
            if used:
                raise ConfigError(f"{flag} does not go with --inner-learning-rate: it {reason}.")

    def _check_amounts(self) -> None:
        """Raise ConfigError unless numbers are in range and fit each other."""
        if self.teacher_perplexity is not None and not self.teacher_perplexity > 1:
            raise ConfigError(
                "--teacher-perplexity must be above 1, the perplexity of a single document, but it "
                f"is {self.teacher_perplexity:g}."
            )
        if not self.epochs > 0:
            raise ConfigError(f"--epochs must be above 0, but it is {self.epochs}.")
        if self.max_steps != -1 and self.max_steps < 1:
            raise ConfigError(
                f"--max-steps must be at least 1, or -1 for --epochs, but it is {self.max_steps}."
            )
        for dim in self.dims:
            if dim < 1:
                raise ConfigError(f"--dims must be 1 or more each, but one is {dim}.")
        if self.student_ranks:
            low, high = (*self.student_ranks, 0)[:2]
            if len(self.student_ranks) != 2 or not 1 <= low <= high:
                raise ConfigError(
                    "--student-ranks are two ranks, the lower first, as in 2,15, but they are "
                    f"{','.join(map(str, self.student_ranks))}."
                )
        if self.label_below is not None and self.label_above is None:
            raise ConfigError("--label-below needs --label-above.")
        if self.label_above is not None:
            below = self.label_above if self.label_below is None else self.label_below
            if not 0 <= below <= self.label_above < 1:
                raise ConfigError(
                    "--label-below and --label-above are probabilities, the lower first, but they "
                    f"are {below:g} and {self.label_above:g}."
                )
            if self.positives != "labels":
                raise ConfigError(f"--label-above goes with no --positives {self.positives}.")
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

    GROUPS: ClassVar[Mapping[str, str]] = {
        "data and signals": "data",
        "run": "resume",
    }

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    student: str
    """Model to start from: a folder, a hub id (also ID@REVISION) or packaged:all-MiniLM-L6-v2."""

    queries: str | None = None
    """File of further queries that --scores covers, beside those of --data."""

    teacher_view: str | None = None
    """Other texts of the same ids that the teacher reads, or has read: VIEW of queries.VIEW.jsonl
    and corpus.VIEW.jsonl beside --data, or a path (default: the texts of --data)."""

    student_view: str | None = None
    """Other texts of the same ids that the student reads, as with --teacher-view."""

    meta_view: tuple[str, ...] = ()
    """With --inner-learning-rate: texts of the same ids that the first part of a batch reads, then
    the second, ...; one flag a part. VIEW as with --teacher-view, QUERIES:DOCUMENTS, several joined
    by + (mixed evenly), and `own` for those of --data: `own`, `german:own`, `german+greek:own`."""

    out: Path
    """Folder of the trained model, in sentence-transformers format."""

    recipe: str | None = None
    """Published method to take settings from, which flags override; `--list` shows them."""

    stage: str | None = None
    """Which of the recipe's stages to train, if it has several; `--list` shows them."""

    scores: tuple[str, ...] = ()
    """Score store or run: the candidates of each query, with the teacher's scores. Further stores
    have labels, `LABEL=STORE`: other teachers' scores of the same candidates, for losses such as
    `listwise-kl(teacher_scores=LABEL.scores)`."""

    preferences: Path | None = None
    """Store of a pairwise teacher's preferences, for preference-kl."""

    vectors: str | None = None
    """Model whose vectors the student learns to match: a folder, a hub id or packaged:NAME."""

    states: str | None = None
    """Model whose hidden states and attention the student's follow, token by token (hidden-mse,
    attention-relations), or whose token vectors (token-graph): a folder or a hub id, with the
    student's tokenizer."""

    teacher: tuple[str, ...] = ()
    """Live teacher, which scores the documents of each batch while the student trains:
    late-interaction:MODEL, bi-encoder:MODEL, cross-encoder:MODEL (reads every pair), ... Several
    have labels, `LABEL=bi-encoder:MODEL`, for losses such as
    `batch-kl(teacher_batch_scores=LABEL.batch_scores)`."""

    joint_teacher: str | None = None
    """Teacher that is trained together with the student, and saved as OUT.teacher:
    cross-encoder:MODEL, bi-encoder:MODEL, late-interaction:MODEL or sparse:MODEL. Its scores are
    `joint.scores` in losses such as `listwise-kl(teacher_scores=joint.scores)`, and in
    `listwise-ce(student_scores=joint.scores)`, which trains it."""

    split: str = "train"
    """Split whose labels are used."""

    resume: bool = False
    """Resume from the last checkpoint under --out."""

    overwrite: bool = False
    """Replace what is at --out."""
