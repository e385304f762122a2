"""What a training reports: loss terms and measurements, in the Trainer's log and its trackers.

Trackers come first among a Trainer's callbacks, and its history keeps a copy: what a callback
adds to the logs in `on_log` reaches neither. `Trainer.log`, which is made to be overridden, does.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from retrodistill.base.errors import ConfigError, MissingExtra
from retrodistill.base.logging import log
from retrodistill.stages.training.optimising import set_rates

Report = Callable[[], Mapping[str, float]]
"""Returns the values to report since its last call, by name."""


class StudentTrainer(Trainer):
    """A Trainer whose log rows of the loss hold the values of `reports` as well.

    `rates` are learning rates of parts of the model that have one of their own.
    """

    def __init__(
        self,
        *args: Any,
        reports: Sequence[Report] = (),
        rates: Mapping[Module, float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self._reports = tuple(reports)
        self._rates = dict(rates or {})

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """Return the optimizer, with the parameters of `rates` in groups of their own."""
        made = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if not made:
            set_rates(optimizer, self._rates)
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a row, with the reports if it holds the loss of the steps since the last one."""
        if "loss" in logs:
            logs = logs | {
                name: value for report in self._reports for name, value in report().items()
            }
        super().log(logs, start_time)


class LossTerms(TrainerCallback):
    """Averages each loss term of a task over the steps since the last row of the log.

    Steps in which a term was exactly 0 are counted: their batches lacked its signal.
    """

    def __init__(self, losses: Callable[[], Mapping[str, float]]) -> None:
        self._losses = losses
        self._sums: dict[str, float] = {}
        self._count = 0
        self._steps = 0
        self.without_signal: dict[str, int] = {}
        """How many steps had no signal for a term, by name; terms that always had one are not here.

        Counted since the start or the last resume, of this process's batches.
        """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the terms of the last forward pass."""
        self._count += 1
        self._steps += 1
        for name, value in self._losses().items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            if value == 0:
                self.without_signal[name] = self.without_signal.get(name, 0) + 1

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log how many steps had no signal for a term."""
        for name, steps in self.without_signal.items():
            if state.is_world_process_zero:
                log.warning(
                    f"{name} had no signal in {steps:,} of {self._steps:,} steps: no label, no "
                    "negative, or no order of the teacher in the batch. It was 0 there; a larger "
                    "--batch-size avoids that."
                )

    def means(self) -> dict[str, float]:
        """Return the mean of each term since the last call."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def curve(
    log_history: Sequence[Mapping[str, float]], names: Sequence[str]
) -> list[dict[str, float]]:
    """Return step and named values of each row of a Trainer's log that has any of them.

    A term that starts later is not in the rows before.
    The Trainer keeps its log in checkpoints: after a resume it is that of the whole training.
    """
    return [
        {"step": row["step"], **{name: row[name] for name in names if name in row}}
        for row in log_history
        if any(name in row for name in names)
    ]


def trackers(names: Sequence[str], logs: Path) -> list[TrainerCallback]:
    """Return transformers' callbacks for trackers; one that writes files does so below `logs`.

    They are passed to the Trainer as callbacks, with `report_to="none"`: by default they would
    write into the folder of checkpoints, which is removed when the training is done.

    Raises:
        ConfigError: transformers knows no such tracker.
        MissingExtra: a tracker's package is not installed.

    """
    callbacks = []
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            supported = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"unknown --tracker {name!r}. Known: {supported}.")
        try:
            callback = INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            raise MissingExtra(f"--tracker {name}: {error}") from error
        if hasattr(callback, "logging_dir") and callback.logging_dir is None:
            callback.logging_dir = str(logs)
        callbacks.append(callback)
    return callbacks
