"""First-order meta-learning: losses at weights that a few steps have adapted to other texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed
from torch.func import functional_call

from retrodistill.models.students.processes import gathered
from retrodistill.models.students.tasks import Task
from retrodistill.objectives.objective import Signals

Part = dict[str, Any]
Weights = dict[str, Tensor]
Collate = Callable[[Sequence[Any]], Part]


class MetaBatch:
    """Deals the items of a batch out to its parts, one after another; each has its own texts."""

    def __init__(self, collators: Sequence[Collate]) -> None:
        self._collators = tuple(collators)

    def __call__(self, items: Sequence[Any]) -> dict[str, list[Part]]:
        """Return the inputs of `MetaTask.forward`."""
        count = len(self._collators)
        parts = [collate(items[offset::count]) for offset, collate in enumerate(self._collators)]
        return {"parts": parts}


class MetaTask(Task):
    """A task whose loss is that of each part of a batch after steps on the part before it.

    Of two neighbouring parts, the first is the support and the second the query of a transfer:

        adapted = weights - rate * gradient of the support's loss, `steps` times
        loss    = mean over transfers of the query's loss at the adapted weights

    The gradient of an inner step counts as a constant (first-order MAML), so the gradient of the
    loss at adapted weights is that of the weights themselves. Nothing is written into the model:
    adapted weights are tensors of one forward pass. Terms of `comparing` are of the parts that are
    the query of one transfer, then the support of the next: the student's loss is that of the
    weights as they are, the teacher's that of the adapted ones; averaged over such parts.

    All readings of a part in a forward pass have the same dropout, so that their losses differ by
    the weights alone. Several processes adapt alike: to the mean of their gradients.

    Source: Finn et al. 2017, arXiv:1703.03400 (MAML); M'hamdi et al. 2023, arXiv:2309.08185.
    """

    def __init__(
        self,
        task: Task,
        comparing: Callable[[Signals], dict[str, Tensor]] | None,
        *,
        rate: float,
        steps: int,
    ) -> None:
        super().__init__(task.model, task._objective, task.dtype)
        for name, layer in task.named_children():
            setattr(self, name, layer)
        # In a tuple, so that its weights are not registered twice.
        self._reading = (task,)
        self._comparing, self._rate, self._steps = comparing, rate, steps

    def forward(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Return the loss of a batch, given the inputs of the task for each of its parts."""
        self._reading[0].progress = self.progress
        weights: Weights = {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }
        readings = [_Reading(self._reading[0], inputs, self.model.device) for inputs in parts]
        queried: list[dict[str, Tensor]] = []
        compared: list[dict[str, Tensor]] = []
        for support, query in pairwise(readings):
            adapted = weights
            for step in range(self._steps):
                values = support(adapted)
                # whether another transfer was measured on this part
                shared = self._comparing is not None and step == 0 and bool(queried)
                if shared:
                    compared.append(self._compare(values, queried[-1]))
                adapted = self._step(adapted, _sum(values), keeps_graph=shared)
            queried.append(query(adapted))
        values = _mean(queried) | _mean(compared)
        if self.probe is not None:
            self.probe.measure(values)
        self.losses = {name: float(value.detach()) for name, value in values.items()}
        return {"loss": _sum(values)}

    @property
    def probed(self) -> Sequence[Tensor]:
        """All trained weights: an inner step needs its gradient to reach them."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _step(self, weights: Weights, loss: Tensor, *, keeps_graph: bool) -> Weights:
        """Return the weights after a step of gradient descent; gradients flow back to `weights`."""
        gradients = torch.autograd.grad(
            loss, list(weights.values()), retain_graph=keeps_graph, materialize_grads=True
        )
        return {
            name: weight - self._rate * _averaged(gradient)
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }

    def _compare(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the comparing terms of one part; losses are means over all processes."""
        assert self._comparing is not None
        signals = {
            "student_loss": gathered(_sum(student).reshape(1)).mean(),
            "teacher_loss": gathered(_sum(teacher).reshape(1)).mean(),
        }
        if self.progress is not None:
            signals["progress"] = torch.tensor(self.progress)
        return self._comparing(Signals(**signals))


class _Reading:
    """Reads one part of a batch by weights, always under the dropout of the first time."""

    def __init__(self, task: Task, part: Part, device: torch.device) -> None:
        self._task, self._part, self._device = task, part, device
        self._state: list[Tensor] | None = None

    def __call__(self, weights: Weights) -> dict[str, Tensor]:
        """Return each weighted term of the task's objective."""
        if self._state is None:
            self._state = _random_state(self._device)
            return self._read(weights)
        with _replayed(self._state, self._device):
            return self._read(weights)

    def _read(self, weights: Weights) -> dict[str, Tensor]:
        outputs = functional_call(self._task, weights, (), self._part)
        terms: dict[str, Tensor] = outputs["terms"]
        return terms


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(states: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


@contextmanager
def _replayed(states: Sequence[Tensor], device: torch.device) -> Iterator[None]:
    """Draw the random numbers from a state again; afterwards, those that were due."""
    due = _random_state(device)
    _set_random_state(states, device)
    try:
        yield
    finally:
        _set_random_state(due, device)


def _averaged(gradient: Tensor) -> Tensor:
    """Return the mean of all processes' gradients."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return gradient
    distributed.all_reduce(gradient)
    return gradient / distributed.get_world_size()


def _sum(values: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(values.values())).sum()


def _mean(values: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each term over those that have it."""
    names = dict.fromkeys(name for each in values for name in each)
    return {
        name: torch.stack([each[name] for each in values if name in each]).mean() for name in names
    }
