"""How an objective's terms share the gradient, measured before the first step.

A sum of losses trains the term with the largest gradient, and a weight says little about that. At
a temperature of 0.05 a term may weigh 400 times more, or less, than it seems to.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from retrodistill.base.logging import log
from retrodistill.models.students.probe import Probe
from retrodistill.models.students.processes import is_main

if TYPE_CHECKING:
    from retrodistill.models.students.tasks import Task
    from retrodistill.objectives.objective import LossTerm

BATCHES = 4
"""Number of measured batches, spread over the training."""

RATIO = 30
"""A term whose gradient is below 1 / RATIO of another's is hardly trained."""


def gradient_norms(
    task: "Task", batches: Sequence[Mapping[str, Any]], *, joint: bool = False
) -> dict[str, float]:
    """Return the norm of each weighted term's gradient at the outputs of the student's body.

    With `joint`, at those of the joint teacher's body; where terms read the student's layers as
    well, at the weights of its body; where weights are adapted, at all of them. Nothing is trained
    and no random number is drawn: dropout is off, weights, gradients, buffers and modes stay as
    they are.
    """
    from accelerate.utils import send_to_device

    probe = Probe(() if joint else task.probed)
    with _measured(task, probe, joint=joint):
        for batch in batches:
            task(**send_to_device(batch, task.model.device))
    return probe.norms()


def check_balance(
    task: "Task",
    terms: "Sequence[LossTerm]",
    examples: Sequence[Any],
    collate: Callable[..., dict[str, Any]],
    batch_size: int,
    *,
    joint: bool = False,
) -> dict[str, float]:
    """Return each term's share of the gradient before the first step, by name; log imbalances.

    A warning says which term is below 1 / RATIO of another, with the weight that would give both
    the same, and which has no gradient in any batch. Every process measures the same batches. With
    `joint`, the shares are those of the gradient into the joint teacher, for the terms that have
    one; otherwise the terms that train the joint teacher alone have none.
    """
    steps = max(1, len(examples) // batch_size)
    starts = [steps * index // BATCHES * batch_size for index in range(BATCHES)]
    batches = [
        collate([examples[row] for row in range(start, min(start + batch_size, len(examples)))])
        for start in dict.fromkeys(starts)
    ]
    norms = gradient_norms(task, batches, joint=joint)
    own = {term.key for term in terms if term.of_joint_teacher}
    if joint:
        norms = {name: norm for name, norm in norms.items() if norm or name in own}
    else:
        norms = {name: norm for name, norm in norms.items() if name not in own}
    total = sum(norms.values())
    shares = {name: norm / total if total else 0.0 for name, norm in norms.items()}
    if is_main():
        where = "gradient into the joint teacher" if joint else "gradient"
        for sentence in _sentences(terms, norms, shares, len(batches), where):
            log.info(sentence)
    return {name: float(f"{share:.3g}") for name, share in shares.items()}


def _sentences(
    terms: "Sequence[LossTerm]",
    norms: Mapping[str, float],
    shares: Mapping[str, float],
    batches: int,
    where: str,
) -> Iterator[str]:
    if len(shares) > 1:
        portions = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        yield f"{where} before the first step: {portions}."
    strongest = max(norms, key=lambda name: norms[name], default="")
    for name, norm in norms.items():
        if norm == 0:
            yield (
                f"{name} has no gradient in any of {batches} batches: they lack its signal "
                "(labels, negatives, scores that differ), or there is nothing to improve."
            )
        elif norm * RATIO < norms[strongest]:
            times = norms[strongest] / norm
            (weight,) = (term.weight for term in terms if term.key == name)
            yield (
                f"{name} has 1/{times:.0f} of the gradient of {strongest}, so {strongest} is "
                f"trained nearly alone. {times * weight:.3g}*{name} would balance them; a term "
                "that only regularises may be small on purpose."
            )


@contextmanager
def _measured(task: "Task", probe: Probe, *, joint: bool) -> Iterator[None]:
    """Attach a probe to a task in evaluation mode, or to its joint teacher's, and restore both."""
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    modes = {module: module.training for module in task.modules()}
    losses, device = task.losses, task.model.device
    task.eval()
    for module in task.modules():
        if isinstance(module, SpladePooling):  # in evaluation it overwrites what gradients need
            module.train()
    probed = task.joint.task if joint else task
    probed.probe = probe
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        probed.probe = None
        task.losses = losses
        for module, training in modes.items():
            module.training = training
