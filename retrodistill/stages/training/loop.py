"""The training loop: transformers.Trainer around a task, by its public hooks."""

import math
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from retrodistill.base.config import TrainSettings
from retrodistill.base.logging import log
from retrodistill.base.progress import bar
from retrodistill.models.inference import pick_device
from retrodistill.models.students.processes import of_main
from retrodistill.stages.training.averaging import WeightAverage
from retrodistill.stages.training.cuts import log_cut_documents
from retrodistill.stages.training.optimising import ClipEach
from retrodistill.stages.training.resuming import (
    checkpoint_folder,
    last_checkpoint,
    start_checkpoints,
)
from retrodistill.stages.training.stopping import BestWeights
from retrodistill.stages.training.tracking import LossTerms, StudentTrainer, curve, trackers

if TYPE_CHECKING:
    from retrodistill.models.students.tasks import Task
    from retrodistill.stages.training.plan import TrainingPlan

ROWS = 20
"""Rows of a training's log."""

MEASUREMENTS = 10
"""Measurements on the dev split, without --eval-steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """Results of a training loop."""

    steps: int
    """Steps that were taken, fewer than planned if patience ended it."""

    seconds: float
    """Wall time of the steps."""

    losses: list[dict[str, float]]
    """Each weighted loss term, averaged between two rows; `step` is where the row ends."""

    best: tuple[int, float] | None
    """Step and value of the best measurement on the dev split, whose weights the model has."""

    measured: list[tuple[int, float]]
    """Step and value of each measurement."""

    joint_measured: list[tuple[int, float]]
    """The same of the joint teacher."""

    gradient_shares: Mapping[str, float]
    """Each loss term's share of the gradient before the first step."""

    joint_shares: Mapping[str, float]
    """The same of the gradient into the joint teacher."""

    without_signal: Mapping[str, int] = field(default_factory=dict)
    """Steps whose batches had no signal for a loss term, by its name."""


def fit(plan: "TrainingPlan", out: Path, *, resume: bool = False) -> Fitted:
    """Train the plan's task in place.

    Checkpoints are written to `checkpoint_folder(out)`, trackers' files to `OUT.logs`.
    """
    from retrodistill.stages.training.balance import check_balance

    settings, task, steps = plan.settings, plan.task, plan.steps
    log.info(plan.material.sentence(settings))
    log_cut_documents(task.model, plan.material, settings.doc_tokens)
    measured = task, plan.terms, plan.schedule, plan.collate, settings.batch_size
    shares = check_balance(*measured)
    joint_shares = check_balance(*measured, joint=True) if task.joint is not None else {}
    start_checkpoints(out, plan.record, resume=resume, save=bool(settings.save_steps))
    last = _resumed_from(out) if resume else None
    started = time.perf_counter()
    losses = LossTerms(lambda: task.losses)
    average = _average(settings, steps, last)
    best = _best(plan, last, average)
    optional = [callback for callback in (average, best) if callback]
    callbacks: list[TrainerCallback] = [_Bar(steps), losses, *optional]
    callbacks += filter(None, (source.callback(last) for source in plan.sources))
    if any(term.start for term in plan.terms):
        callbacks.append(_Progress(task))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = _arguments(settings, steps, out, scratch)
        _use_one_device(arguments)
        rates = {}
        if plan.joint is not None:
            # Each model's gradient is clipped by itself: none slows the other down.
            callbacks.append(ClipEach([task.model, task.joint], arguments.max_grad_norm))
            arguments.max_grad_norm = 0.0
            rates = {task.joint: plan.joint.settings(settings).learning_rate}
        trainer = StudentTrainer(
            model=task,
            args=arguments,
            train_dataset=plan.schedule,
            data_collator=plan.collate,
            callbacks=[*trackers(settings.tracker, out.with_name(f"{out.name}.logs")), *callbacks],
            reports=[losses.means, *([best.latest] if best else [])],
            rates=rates,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    task.eval()
    return Fitted(
        steps=trainer.state.global_step,
        seconds=time.perf_counter() - started,
        losses=curve(trainer.state.log_history, [term.key for term in plan.terms]),
        best=best.best if best else None,
        measured=best.values if best else [],
        joint_measured=best.beside if best else [],
        gradient_shares=shares,
        joint_shares=joint_shares,
        without_signal=losses.without_signal,
    )


def _resumed_from(out: Path) -> Path | None:
    """Return the checkpoint to resume from, if there is one, and log it."""
    checkpoints = checkpoint_folder(out)
    last = last_checkpoint(checkpoints)
    if last is None:
        log.info(f"no checkpoint under {checkpoints}: training starts at the beginning.")
    else:
        log.info(f"training resumes from {last}.")
    return last


def _average(settings: TrainSettings, steps: int, last: Path | None) -> WeightAverage | None:
    if settings.average == "none":
        return None
    return WeightAverage(
        settings.average,
        steps,
        decay=settings.average_decay,
        start=settings.average_start,
        checkpoint=last,
    )


def _best(
    plan: "TrainingPlan", last: Path | None, average: WeightAverage | None
) -> BestWeights | None:
    settings, joint = plan.settings, plan.joint_development
    if plan.development is None:
        return None
    return BestWeights(
        partial(of_main, partial(plan.development, plan.task.model)),
        beside=partial(of_main, partial(joint, plan.task.joint.model)) if joint else None,
        name=settings.dev_metric,
        every=settings.eval_steps or max(1, plan.steps // MEASUREMENTS),
        patience=settings.patience,
        min_delta=settings.min_delta,
        weights=average.applied if average else lambda model: nullcontext(),
        checkpoint=last,
    )


def _arguments(settings: TrainSettings, steps: int, out: Path, scratch: str) -> TrainingArguments:
    """Return the Trainer's settings; without checkpoints it writes into `scratch`."""
    return TrainingArguments(
        output_dir=str(checkpoint_folder(out)) if settings.save_steps else scratch,
        run_name=out.name,
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
        logging_steps=max(1, steps // ROWS),
        save_strategy="steps" if settings.save_steps else "no",
        save_steps=settings.save_steps or steps,
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
    )


def _use_one_device(arguments: TrainingArguments) -> None:
    """Keep the Trainer from splitting a batch over several GPUs: its queries share documents."""
    visible = arguments.n_gpu
    if visible > 1:
        log.warning(
            f"{visible} GPUs are visible, and one of them is used. To use all: "
            f"torchrun --nproc-per-node {visible} -m retrodistill.train ..."
        )
        arguments._n_gpu = 1


class _Progress(TrainerCallback):
    """Keeps a task informed of how far its training is, for terms that start later."""

    def __init__(self, task: "Task") -> None:
        self._task = task

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._task.progress = state.global_step / state.max_steps


class _Bar(TrainerCallback):
    """Shows a progress bar, and makes the Trainer log the last step."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._stack = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._advance = self._stack.enter_context(bar("training", self._steps))
        self._advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._advance(1)
        if state.global_step == self._steps:
            control.should_log = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stack.close()
