"""A second model that is trained with a student: its scores of each batch, with their gradient."""

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn

from retrodistill.models.students.batches import BatchRows
from retrodistill.models.students.tasks import Task
from retrodistill.objectives.labels import JOINT, OWN


class JointModel(nn.Module):
    """Scores a batch by a model of its own, read its own way, as signals of the label `joint`.

    It is a module of the student's task: its weights are trained, kept in checkpoints and averaged
    with the student's, and a gradient flows into them through every signal.
    """

    def __init__(
        self, task: Task, collate: Callable[..., dict[str, Any]], requested: Collection[str]
    ) -> None:
        super().__init__()
        self.task = task
        self._collate = collate
        self._requested = frozenset(requested)

    @property
    def model(self) -> Any:
        """The model itself."""
        return self.task.model

    def forward(self, batch: BatchRows) -> dict[str, Tensor]:
        """Return `joint.scores` (B, N), and of a retriever `joint.batch_scores` (B, M).

        Of these, and of `joint.layer_scores`, those that are requested. The documents are in the
        order in which the student's signals have them.
        """
        from accelerate.utils import send_to_device

        inputs = send_to_device(self._collate(batch.examples), self.model.device)
        scores = self.task.scores(inputs)
        named = {f"{JOINT}.{name}": signal for signal, name in OWN.items()}
        return {label: scores[named[label]] for label in self._requested}
