"""The training loop: transformers.Trainer around a task, resumed from checkpoints in one step."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrodistill.config import Precision
from retrodistill.errors import ConfigError
from retrodistill.manifest import Manifest, digest_files, new_folder, refuse_existing
from retrodistill.progress import duration, say
from retrodistill.training.examples import Schedule, gather
from retrodistill.training.temperature import teacher_perplexity

if TYPE_CHECKING:
    import torch

    from retrodistill.datasets import Collection
    from retrodistill.store.runs import Run
    from retrodistill.types import Encoder


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """How to train; `retrodistill.config.TrainConfig` documents each field."""

    student_kind: Literal["bi-encoder", "cross-encoder"] = "bi-encoder"
    keep_layers: tuple[int, ...] = ()
    candidates_per_query: int = 8
    pool: int = 32
    batch_size: int = 16
    epochs: float = 1.0
    max_steps: int = -1
    learning_rate: float = 3e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    dropout: float | None = None
    query_tokens: int = 64
    doc_tokens: int = 160
    batch_tokens: int = 4096
    precision: Precision = "auto"
    seed: int = 0
    save_steps: int = 0


def train_student(
    collection: "Collection",
    student: str | Path,
    out: Path,
    *,
    scores: "Run | None" = None,
    vectors: "Encoder | None" = None,
    split: str = "train",
    objective: str = "listwise-kl",
    settings: TrainSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Train a student and return its folder, in sentence-transformers format.

    `student` is where it starts: a folder or a hub id. With `scores`, it learns from the
    candidates and teacher scores found there; without, from labels and in-batch negatives.
    `vectors` is the encoder that the objective `embed-distill` follows.
    Checkpoints lie in `OUT.checkpoints` until the training is done.

    Raises:
        ConfigError: the model, the objective or `out` cannot be used.
        DataError: no query can be learned from, or the objective lacks a signal.

    """
    from transformers import set_seed

    from retrodistill.inference import without_bars
    from retrodistill.objective import parse_objective

    settings = settings or TrainSettings()
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    terms = parse_objective(objective)
    wanted = {signal for term in terms for signal in term.signals}
    if "teacher_scores" in wanted and scores is None:
        raise ConfigError(f"objective {objective!r} needs teacher scores: give --scores.")
    if "teacher_doc_vectors" in wanted and vectors is None:
        raise ConfigError(f"objective {objective!r} needs a teacher's vectors: give --vectors.")
    candidates = gather(collection, split, scores, pool=settings.pool)
    steps = settings.max_steps
    if steps < 0:
        steps = math.ceil(len(candidates) * settings.epochs / settings.batch_size)
    schedule = Schedule(
        candidates,
        steps * settings.batch_size,
        per_query=settings.candidates_per_query,
        seed=settings.seed,
    )
    set_seed(settings.seed)
    queries = [chosen.query for chosen in candidates]
    task, collate = _build(collection, str(student), terms, settings, scores, vectors, queries)
    checkpoints = out.parent / f"{out.name}.checkpoints"
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    say(
        f"{len(candidates):,} queries, {steps:,} steps of {settings.batch_size} queries with "
        f"up to {settings.candidates_per_query} documents."
    )
    perplexities = {}
    if scores is not None:
        perplexities = teacher_perplexity(terms, scores, first=settings.pool + 1)
    started = time.perf_counter()
    history = _fit(task, collate, schedule, steps, settings, checkpoints, resume)
    seconds = time.perf_counter() - started
    with new_folder(out, overwrite=overwrite) as folder, without_bars():
        task.model.save(str(folder), safe_serialization=True)
        inputs = {"collection": collection.fingerprint}
        if scores is not None:
            inputs["scores"] = scores.fingerprint
        if vectors is not None:
            inputs["vectors"] = vectors.fingerprint
        Manifest(
            kind="student",
            fingerprint=digest_files(folder, "*.safetensors"),
            inputs=inputs,
            config=config
            or {"student": str(student), "objective": objective, "split": split} | asdict(settings),
            details={
                "queries": len(candidates),
                "steps": steps,
                "seconds": round(seconds, 1),
                "dtype": str(task.dtype).removeprefix("torch."),
                "teacher_perplexity": perplexities,
                "losses": history,
            },
        ).write(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)
    say(f"trained in {duration(seconds)}: {out}")
    return out


def _build(
    collection: "Collection",
    student: str,
    terms: Any,
    settings: TrainSettings,
    scores: "Run | None",
    vectors: "Encoder | None",
    query_rows: Sequence[int],
) -> tuple[Any, Any]:
    """Return the task to train and the collator that feeds it."""
    from retrodistill.inference import body_dtype, pick_device
    from retrodistill.objective import bind
    from retrodistill.students.cross_encoder import load_cross_encoder
    from retrodistill.students.dense import load_bi_encoder, side_prompts
    from retrodistill.students.make import keep_layers
    from retrodistill.training.batches import BiEncoderBatch, CrossEncoderBatch, TeacherVectors
    from retrodistill.training.tasks import BiEncoderTask, CrossEncoderTask

    device = pick_device()
    dtype = body_dtype(settings.precision, device)
    cross = settings.student_kind == "cross-encoder"
    model: Any = (load_cross_encoder if cross else load_bi_encoder)(student, device)
    if settings.keep_layers:
        model = keep_layers(model, settings.keep_layers)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    limit = model.max_seq_length or 512
    common: dict[str, Any] = {
        "batch_tokens": settings.batch_tokens,
        "teacher": scores is not None,
    }
    queries, docs, tokenizer = collection.queries, collection.docs, model.tokenizer
    if cross:
        pair_tokens = min(limit, settings.doc_tokens)
        collate: Any = CrossEncoderBatch(queries, docs, tokenizer, max_tokens=pair_tokens, **common)
        return CrossEncoderTask(model, bind(terms), dtype), collate
    query_prompt, doc_prompt = side_prompts(model)
    collate = BiEncoderBatch(
        queries,
        docs,
        tokenizer,
        query_tokens=min(limit, settings.query_tokens),
        doc_tokens=min(limit, settings.doc_tokens),
        query_prompt=query_prompt,
        doc_prompt=doc_prompt,
        vectors=TeacherVectors(vectors, queries, docs, query_rows) if vectors else None,
        **common,
    )
    return BiEncoderTask(model, bind(terms), dtype), collate


def set_dropout(model: "torch.nn.Module", probability: float) -> None:
    """Set the dropout probability of every layer of a model that is about to be trained."""
    from torch import nn

    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = probability
        elif isinstance(getattr(part, "dropout_prob", None), float):
            part.dropout_prob = probability  # type: ignore[assignment]


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint: the Trainer writes trainer_state.json last."""

    def whole(path: Path) -> bool:
        try:
            return bool(json.loads((path / "trainer_state.json").read_text()))
        except (OSError, ValueError):
            return False

    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next((path for path in found if whole(path)), None)


def _fit(
    task: Any,
    collate: Any,
    schedule: Schedule,
    steps: int,
    settings: TrainSettings,
    checkpoints: Path,
    resume: bool,
) -> list[dict[str, float]]:
    """Run transformers.Trainer, and return the logged losses."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from retrodistill.inference import pick_device

    last = last_checkpoint(checkpoints) if resume else None
    if resume and last is None:
        say(f"no checkpoint under {checkpoints}: training starts at the beginning.")
    if last is not None:
        say(f"training goes on from {last}.")
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=str(checkpoints if settings.save_steps else scratch),
            per_device_train_batch_size=settings.batch_size,
            max_steps=steps,
            learning_rate=settings.learning_rate,
            warmup_steps=math.ceil(settings.warmup * steps),
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            use_cpu=pick_device().type == "cpu",
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            logging_steps=max(1, steps // 20),
            save_strategy="steps" if settings.save_steps else "no",
            save_steps=settings.save_steps or steps,
            save_total_limit=2,
            disable_tqdm=True,
            report_to="none",
        )
        log = _log(task, steps)
        trainer = Trainer(
            model=task,
            args=arguments,
            train_dataset=schedule,
            data_collator=collate,
            callbacks=[log],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    task.model.eval()
    return log.history  # type: ignore[no-any-return]


def _log(task: Any, steps: int) -> Any:
    """Return a callback that averages each loss term, shows a bar, and keeps what was logged."""
    from contextlib import ExitStack

    from transformers import TrainerCallback

    from retrodistill.progress import bar

    class Log(TrainerCallback):
        def __init__(self) -> None:
            self.history: list[dict[str, float]] = []
            self._sums: dict[str, float] = {}
            self._count = 0
            self._stack = ExitStack()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._advance = self._stack.enter_context(bar("training", steps))
            self._advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._advance(1)
            self._count += 1
            for name, value in task.losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            if state.global_step % args.logging_steps == 0 or state.global_step == steps:
                means = {name: total / self._count for name, total in self._sums.items()}
                self.history.append({"step": state.global_step, **means})
                self._sums, self._count = {}, 0

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._stack.close()

    return Log()
