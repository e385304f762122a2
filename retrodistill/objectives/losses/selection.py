"""Losses that choose, in each batch, the queries to learn from."""

import math

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import (
    average,
    kl_terms,
    masked_log_softmax,
    real_lists,
)


@loss(zero_at={"student_scores": "teacher_scores"})
def selected_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    share: float = 0.5,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence over the queries where the teacher is sure and the student is not.

    Queries are ranked by H(student) / ln n - H(teacher) / ln n, where H is the entropy of the
    softmax over the n candidates of the list and both parts lie between 0 and 1; the first `share`
    of the batch's queries, rounded up, are learned from, as in `listwise_kl`, and the others cost
    nothing in this step. So what the student has mastered, and what the teacher does not know, is
    skipped; a query comes back when the student has become unsure. With a share of 1 this is
    `listwise_kl`. Entropies depend on the temperatures, and have no gradient. Each of several
    processes chooses from its own queries. In nats, averaged over the chosen queries.

    Raises:
        ConfigError: the share is not above 0, or above 1.

    Source: the selection by the student's entropy is that of Dynamic KD, Li et al. 2021,
    arXiv:2109.11295 (from its abstract); the teacher's part is this package's own.

    """
    if not 0 < share <= 1:
        raise ConfigError(f"selected_kl: share must be above 0 and at most 1, not {share}.")
    keep = real_lists(mask)
    student = masked_log_softmax(student_scores / student_temperature, mask)[keep]
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask)[keep]
    real = mask[keep]
    unsure = _evenness(student.detach(), real) - _evenness(teacher, real)
    chosen = unsure.argsort(descending=True, stable=True)[: math.ceil(share * len(unsure))]
    return average(kl_terms(teacher, student, real).sum(-1)[chosen])


def _evenness(log_p: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """Return the entropy of each list over that of an even one: 0 if it is one-hot."""
    entropy = -(log_p.exp() * log_p).masked_fill(~mask, 0.0).sum(-1)
    return entropy / mask.sum(-1).log()
