"""Measurement while training: keep the best weights, and stop early."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.stages.training.snapshots import (
    Weights,
    put,
    read_snapshot,
    taken,
    write_snapshot,
)

FILE = "best.safetensors"


class BestWeights(TrainerCallback):
    """Measures every N steps; at the end the model gets the best-measured weights.

    The last step is measured too. The best weights are those of the highest value; of equal
    values, the earlier. Training stops after `patience` measurements in a row that were not above
    the value at which the count began by `min_delta` at least: many small gains add up to one.

    The state (best weights, all values, the count) is part of each checkpoint. A resumed training
    has the measurements of an uninterrupted one.

    Args:
        measure: returns the value of the model's present weights; higher is better.
        beside: returns the value of a second model that is trained with it, which is recorded; the
            weights that are kept are both models' of one step, which `measure` chooses.
        name: what is measured, for the log.
        every: steps between measurements.
        patience: measurements without a gain before training stops (0: never).
        min_delta: smallest gain that counts for patience.
        weights: context in which the model has the weights to measure and keep, such as
            `WeightAverage.applied`; else its own.
        checkpoint: folder of the checkpoint that the training resumes from, if it does.

    Raises:
        ConfigError: a number is out of range.

    """

    def __init__(
        self,
        measure: Callable[[], float],
        *,
        name: str,
        every: int,
        beside: Callable[[], float] | None = None,
        patience: int = 0,
        min_delta: float = 0.0,
        weights: Callable[[nn.Module], AbstractContextManager[None]] = lambda model: nullcontext(),
        checkpoint: Path | None = None,
    ) -> None:
        if every < 1 or patience < 0 or not min_delta >= 0:
            raise ConfigError(
                f"measurements must be at least 1 step apart (not {every}), and patience "
                f"({patience}) and min_delta ({min_delta}) at least 0."
            )
        self._measure, self._beside = measure, beside
        self._name, self._every = name, every
        self._patience, self._min_delta = patience, min_delta
        self._weights, self._checkpoint = weights, checkpoint
        self._best: Weights = {}
        self._mark, self._waited = -math.inf, 0
        self.values: list[tuple[int, float]] = []
        """Step and value of each measurement."""
        self.beside: list[tuple[int, float]] = []
        """The same of the second model."""
        self._fresh: dict[str, float] = {}

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the best measurement, if there was one."""
        return max(self.values, key=lambda item: (item[1], -item[0]), default=None)

    @property
    def exhausted(self) -> bool:
        """Whether patience is exhausted."""
        return 0 < self._patience <= self._waited

    def latest(self) -> dict[str, float]:
        """Return the value measured since the last call, by the name that trackers use."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Restore the state of the checkpoint."""
        if self._checkpoint is not None:
            self._best, numbers = read_snapshot(self._checkpoint, FILE, objects["model"])
            self.values = [(int(step), float(value)) for step, value in numbers["values"]]
            self.beside = [(int(step), float(value)) for step, value in numbers.get("beside", ())]
            self._waited = int(numbers["waited"])
            self._mark = -math.inf if numbers["mark"] is None else float(numbers["mark"])

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> Any:
        """Measure if it is due, and write the state with a checkpoint that is due."""
        due = state.global_step % self._every == 0 or state.global_step >= state.max_steps
        if due and not self.exhausted:
            with self._weights(objects["model"]):
                self._take(state.global_step, self._measure(), objects["model"])
                if self._beside is not None:
                    self._record_beside(state.global_step, self._beside())
            control.should_log = True
        if self.exhausted:  # at once after a resume, if patience was exhausted at the checkpoint
            control.should_training_stop = True
        if control.should_save:
            mark = None if math.isinf(self._mark) else self._mark
            numbers: dict[str, Any] = {"values": self.values, "waited": self._waited, "mark": mark}
            if self._beside is not None:
                numbers["beside"] = self.beside
            write_snapshot(args, state, FILE, self._best, numbers)
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Give the model the best weights."""
        if self._best and self.best is not None:
            put(objects["model"], self._best)
            step, value = self.best
            why = f", stopped at {self.values[-1][0]:,}" if self.exhausted else ""
            log.info(
                f"best {self._name}: {value:.4f} at step {step:,} of {state.max_steps:,}{why}."
            )

    def _record_beside(self, step: int, value: float) -> None:
        """Record a value of the second model."""
        self.beside.append((step, value))
        self._fresh[f"eval_joint_{self._name}"] = value
        log.info(f"joint teacher: {self._name} {value:.4f} at step {step:,}.")

    def _take(self, step: int, value: float, model: nn.Module) -> None:
        """Record a value, and the weights if it is the best."""
        if not math.isfinite(value):
            raise ConfigError(
                f"{self._name} is {value} at step {step}: the training has diverged. "
                "Lower --learning-rate."
            )
        if self.best is None or value > self.best[1]:
            self._best = taken(model)
        gained = value > self._mark and value - self._mark >= self._min_delta
        self._mark, self._waited = (value, 0) if gained else (self._mark, self._waited + 1)
        self.values.append((step, value))
        self._fresh = {f"eval_{self._name}": value}
