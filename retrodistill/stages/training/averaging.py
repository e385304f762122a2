"""Averages of the weights over the training, which often retrieve better than the last weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import TrainerCallback

from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.stages.training.snapshots import (
    Weights,
    put,
    read_snapshot,
    taken,
    trained,
    write_snapshot,
)

Average = Literal["ema", "sma"]
FILE = "average.safetensors"
FOLLOWER = "ema_teacher.safetensors"


class WeightAverage(TrainerCallback):
    """Averages the trained weights after each step; at the end the model gets the average.

    `ema`, exponential: average = d_t * average + (1 - d_t) * weights after step t, where
    d_t = min(decay, (1 + t) / (10 + t)), from the weights before the first step. The warm-up of
    the decay lets a short training forget its start: while it lasts, the average covers about the
    last tenth of the steps, later the last 1 / (1 - decay) of them.

    `sma`, simple: the mean of the weights after each step behind the share `start` of all
    `steps`. Before that there is no average, and the weights stay as they are.

    Averages are float32. Buffers are not averaged (a transformer has no running statistics).
    The order of a Trainer's callbacks matters: this one comes before `BestWeights`.

    Args:
        kind: `ema` or `sma`.
        steps: all steps of the training.
        decay: largest share of the exponential average that a step keeps, 0 to below 1.
        start: share of the steps after which the simple average begins, 0 to below 1.
        checkpoint: folder of the checkpoint that the training resumes from, if it does.

    Raises:
        ConfigError: decay or start is out of range.

    Source: Polyak and Juditsky 1992 for averaging the trajectory; Izmailov et al. 2018,
    arXiv:1803.05407, who average once an epoch, here after every step. The warm-up is that of
    TensorFlow's ExponentialMovingAverage (`num_updates`), whose first step has t = 0, here t = 1.
    """

    def __init__(
        self,
        kind: Average,
        steps: int,
        *,
        decay: float = 0.99,
        start: float = 0.5,
        checkpoint: Path | None = None,
    ) -> None:
        for name, value in (("decay", decay), ("start", start)):
            if not 0 <= value < 1:
                raise ConfigError(f"--average-{name} must be from 0 to below 1, not {value:g}.")
        self._kind, self._decay = kind, decay
        self._first = int(start * steps) + 1
        self._checkpoint = checkpoint
        self._average: Weights = {}
        self.count = 0
        """Steps whose weights are in the average."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Start from the model's weights, or from the checkpoint's average."""
        if self._checkpoint is not None:
            self._average, numbers = read_snapshot(self._checkpoint, FILE, objects["model"])
            self.count = int(numbers["count"])
        else:
            weights = taken(objects["model"])
            self._average, self.count = {name: value.float() for name, value in weights.items()}, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Add the weights to the average, and write it with a checkpoint that is due."""
        if self._kind == "ema" or state.global_step >= self._first:
            self.count += 1
            self._update(objects["model"], self._share())
        if control.should_save:
            write_snapshot(args, state, FILE, self._average, {"count": self.count})

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Make the average the model's weights."""
        if self.count:
            put(objects["model"], self._average)
            log.info(f"the weights are an average ({self._kind}) over {self.count:,} steps.")

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the average within the block, and restore its weights, bit for bit."""
        if not self.count:
            yield
            return
        weights = taken(model)
        put(model, self._average)
        try:
            yield
        finally:
            put(model, weights)

    def _share(self) -> float:
        """Return the weight of the newest weights in the average."""
        if self._kind == "sma":
            return 1 / self.count
        return ema_share(self._decay, self.count)

    @torch.no_grad()
    def _update(self, model: nn.Module, share: float) -> None:
        for name, parameter in trained(model).items():
            self._average[name].lerp_(parameter.float(), share)


def ema_share(decay: float, count: int) -> float:
    """Return the weight of the newest of `count` weights: less decay at first, then `decay`."""
    return 1 - min(decay, (1 + count) / (10 + count))


class Follower(TrainerCallback):
    """Moves a copy of a model towards the trained weights after each step.

    copy = d_t copy + (1 - d_t) weights, with d_t as in `WeightAverage`; the copy is on the device
    of the model by the first step.
    """

    def __init__(
        self, task: nn.Module, copy: nn.Module, decay: float, checkpoint: Path | None
    ) -> None:
        self._task, self._decay, self._checkpoint = task, decay, checkpoint
        parameters = dict(copy.named_parameters())
        self._average: Weights = {name: parameters[name] for name in trained(task)}
        self._count = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start from the student as it is, or from the checkpoint's average."""
        if self._checkpoint is None:
            return
        weights, numbers = read_snapshot(self._checkpoint, FOLLOWER, self._task)
        self._count = int(numbers["count"])
        for name, value in weights.items():
            self._average[name].copy_(value)

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the copy, and write it with a checkpoint that is due."""
        self._count += 1
        share = ema_share(self._decay, self._count)
        for name, parameter in trained(self._task).items():
            self._average[name].lerp_(parameter, share)
        if control.should_save:
            write_snapshot(args, state, FOLLOWER, self._average, {"count": self._count})
