"""The training loop: transformers.Trainer around a task, through its public hooks."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from retrodistill.base.config import TrainSettings
from retrodistill.base.logging import log
from retrodistill.base.manifest import FILE as MANIFEST
from retrodistill.base.progress import bar
from retrodistill.models.inference import pick_device
from retrodistill.stages.training.averaging import WeightAverage
from retrodistill.stages.training.processes import of_main
from retrodistill.stages.training.stopping import BestWeights
from retrodistill.stages.training.tracking import LossTerms, StudentTrainer, curve, trackers

if TYPE_CHECKING:
    from retrodistill.stages.training.examples import Example, Text
    from retrodistill.stages.training.tasks import Task

ROWS = 20
"""Rows of a training's log."""

MEASUREMENTS = 10
"""Measurements on the dev split, unless --eval-steps says otherwise."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training did and logged."""

    steps: int
    """Steps that were taken, fewer than planned if patience ended it."""

    losses: list[dict[str, float]]
    """Each weighted loss term, averaged between two rows; `step` is where the row ends."""

    best: tuple[int, float] | None
    """Step and value of the best measurement on the dev split, whose weights the model has."""

    measured: list[tuple[int, float]]
    """Step and value of each measurement."""

    without_signal: Mapping[str, int] = field(default_factory=dict)
    """Steps whose batches had no signal for a loss term, by its name."""


def checkpoint_folder(out: Path) -> Path:
    """Return where the checkpoints of a student lie until it is done."""
    return out.with_name(f"{out.name}.checkpoints")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint: the Trainer writes trainer_state.json last."""

    def whole(path: Path) -> bool:
        try:
            return bool(json.loads((path / "trainer_state.json").read_text()))
        except (OSError, ValueError):
            return False

    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next((path for path in found if whole(path)), None)


def remove_old_checkpoints(out: Path) -> None:
    """Remove the checkpoints of a student that was finished after them.

    They are there if its training was killed before it could remove them itself.
    """
    states = checkpoint_folder(out).glob("checkpoint-*/trainer_state.json")
    newest = max((path.stat().st_mtime_ns for path in states), default=None)
    manifest = out / MANIFEST
    if newest is not None and manifest.exists() and manifest.stat().st_mtime_ns > newest:
        shutil.rmtree(checkpoint_folder(out), ignore_errors=True)


def fit(
    task: "Task",
    collate: Callable[..., dict[str, Any]],
    examples: "Sequence[Example] | Sequence[Text]",
    steps: int,
    settings: TrainSettings,
    out: Path,
    *,
    terms: Sequence[str],
    measure: Callable[[Any], float] | None = None,
    resume: bool = False,
) -> Fitted:
    """Train the task in place; `terms` names its losses, `measure` gives a model's dev value.

    Checkpoints lie in `checkpoint_folder(out)`, what trackers write in `OUT.logs`.
    """
    checkpoints = checkpoint_folder(out)
    last = last_checkpoint(checkpoints) if resume else None
    if resume and last is None:
        log.info(f"no checkpoint under {checkpoints}: training starts at the beginning.")
    if last is not None:
        log.info(f"training resumes from {last}.")
    losses = LossTerms(lambda: task.losses)
    callbacks: list[TrainerCallback] = [_Bar(steps), losses]
    reports = [losses.means]
    average, best = None, None
    if settings.average != "none":
        average = WeightAverage(
            settings.average,
            steps,
            decay=settings.average_decay,
            start=settings.average_start,
            checkpoint=last,
        )
        callbacks.append(average)
    if measure is not None:
        best = BestWeights(
            partial(of_main, partial(measure, task.model)),
            name=settings.dev_metric,
            every=settings.eval_steps or max(1, steps // MEASUREMENTS),
            patience=settings.patience,
            min_delta=settings.min_delta,
            weights=average.applied if average else lambda model: nullcontext(),
            checkpoint=last,
        )
        callbacks.append(best)
        reports.append(best.latest)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=str(checkpoints if settings.save_steps else scratch),
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
        _use_one_device(arguments)
        trainer = StudentTrainer(
            model=task,
            args=arguments,
            train_dataset=examples,
            data_collator=collate,
            callbacks=[*trackers(settings.tracker, out.with_name(f"{out.name}.logs")), *callbacks],
            reports=reports,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    task.model.eval()
    losses_logged = curve(trainer.state.log_history, terms)
    return Fitted(
        trainer.state.global_step,
        losses_logged,
        best.best if best else None,
        best.values if best else [],
        losses.without_signal,
    )


def _use_one_device(arguments: TrainingArguments) -> None:
    """Keep the Trainer from cutting a batch over several GPUs: its parts belong together."""
    visible = arguments.n_gpu
    if visible > 1:
        log.info(
            f"{visible} GPUs are visible, and one of them is used. To use all: "
            f"torchrun --nproc-per-node {visible} -m retrodistill.train ..."
        )
        arguments._n_gpu = 1


class _Bar(TrainerCallback):
    """Shows a progress bar, and has the last step logged."""

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
