"""The average of the student's own weights as its live teacher: `train --ema 0.99`."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Self

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.objectives.labels import EMA
from retrodistill.stages.training.sources import SignalSource

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import TrainerCallback

    from retrodistill.base.config import TrainSettings
    from retrodistill.models.students.batches import BatchRows
    from retrodistill.models.students.tasks import Task
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.material import Material


class EmaTeacher(SignalSource):
    """Scores of every query of a batch with every document of it, by averaged weights.

    A copy of the student, without dropout and outside the trained module, starts as the student
    and follows it after each optimizer step:

        copy = d_t copy + (1 - d_t) student,  d_t = min(decay, (1 + t) / (10 + t))

    No gradient enters it, and it is not saved with the student; `--average ema` saves such an
    average, and teaches nothing. Each process has the same copy, and reads its own documents.
    Where student and copy are still equal, a KL between them at equal temperatures is 0: a lower
    teacher temperature sharpens it.

    Source: mean teacher, Tarvainen and Valpola 2017, arXiv:1703.01780; the warm-up of the decay is
    that of `WeightAverage`.
    """

    name = EMA
    about = "the average of the student's weights"
    gives = frozenset({f"{EMA}.scores", f"{EMA}.batch_scores"})
    live = True
    opens_late = True

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"--ema must be above 0 and below 1, but it is {decay}.")
        self.decay = decay
        self._inputs: tuple[Material, TrainSettings] | None = None
        self._task: Task | None = None
        self._copy: Task | None = None
        self._batch: BatchRows | None = None
        self._scores: dict[str, Tensor] = {}

    @classmethod
    def open(cls, name: str, settings: "TrainSettings") -> Self:
        """Return the teacher of a decay."""
        return cls(float(name))

    @property
    def fingerprint(self) -> str:
        """Hash of the decay: all else is the student's."""
        return digest(EMA, str(self.decay))

    def prepare(
        self, material: "Material", terms: "Sequence[LossTerm]", settings: "TrainSettings"
    ) -> None:
        """Note what its batches are made of."""
        self._inputs = material, settings

    def attach(self, task: "Task") -> None:
        """Copy the student, without what other sources have added to its task."""
        from retrodistill.stages.training.building import build_batches

        assert self._inputs is not None
        material, settings = self._inputs
        none = {id(task.live): (), id(task.joint): None, id(task.tokens): None}
        self._task, self._copy = task, deepcopy(task, none).eval().requires_grad_(False)
        self._collate = build_batches(task.model, settings, material.collection)

    def callback(self, checkpoint: Path | None) -> "TrainerCallback":
        """Return what moves the copy after each step, and writes it with checkpoints."""
        from retrodistill.stages.training.averaging import Follower

        assert self._task is not None
        assert self._copy is not None
        return Follower(self._task.model, self._copy.model, self.decay, checkpoint)

    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return `ema.scores` (B, N) and `ema.batch_scores` (B, M), columns as the student's."""
        import torch
        from accelerate.utils import send_to_device

        assert student is not None
        assert self._copy is not None
        if self._batch is not batch:  # a student of several dimensions asks once for each
            device = student["batch_scores"].device
            inputs = send_to_device(self._collate(batch.examples), device)
            with torch.no_grad():
                scores = self._copy.to(device).scores(inputs)
            self._batch = batch
            self._scores = {
                f"{EMA}.scores": scores["student_scores"],
                f"{EMA}.batch_scores": scores["batch_scores"],
            }
        return self._scores
