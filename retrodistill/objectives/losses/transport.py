"""Optimal transport: distance between the student's and the teacher's scores or vectors."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import LOWEST, average, real_lists
from retrodistill.objectives.losses.vectors import unit


@loss(zero_at={"student_scores": "teacher_scores"})
def sorted_w1(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Wasserstein-1 distance between the student's and the teacher's scores of a list.

    The mean absolute difference between the k-th best scores of both sides, each divided by its
    temperature: in units of such scores, averaged over the candidates of a list and then over the
    queries with two real candidates. It shapes the distribution of a list's scores and ignores
    which candidate has which score, so add it to a loss that does not.

    Source: Boizard et al. 2024, "Towards Cross-Tokenizer Distillation: the Universal Logit
    Distillation Loss for LLMs", arXiv:2402.12030, which sorts probabilities, not scores.

    """
    keep = real_lists(mask)
    student = _sorted(student_scores / student_temperature, mask)
    teacher = _sorted(teacher_scores / teacher_temperature, mask)
    return average((student - teacher).abs().sum(-1)[keep] / mask.sum(-1)[keep])


@loss(zero_at={"matched_doc_vectors": "teacher_doc_vectors"})
def sinkhorn(
    matched_doc_vectors: Float[Tensor, "M T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
    *,
    epsilon: float = 0.05,
    iterations: int = 20,
) -> Float[Tensor, ""]:
    """Sinkhorn divergence between the student's and the teacher's vectors of documents.

    W(x, y) - W(x, x) / 2 - W(y, y) / 2, where W is the least mean cost of moving one cloud of
    points onto the other, plus `epsilon` times the plan's KL from the independent one. Every
    document weighs 1 / M, and the cost is 1 - cosine: the loss is in its units, 0 where the clouds
    are the same. Small values of `epsilon` approximate true transport better and need more
    `iterations` (one updates both sides); with too few of them the value may be slightly negative.

    It compares the shape of the clouds and ignores which document is which, so add it to a loss
    that does not. The gradient runs through all iterations: memory is at least
    2 * `iterations` * M^2 numbers.

    Raises:
        ConfigError: `epsilon` is not above 0, or `iterations` is below 1.

    Source: the debiased divergence is Feydy et al. 2019, arXiv:1810.08278, the iteration
    Cuturi 2013, arXiv:1306.0895; between the texts of a batch as in Cui et al. 2024,
    "Sinkhorn Distance Minimization for Knowledge Distillation", arXiv:2402.17110 (from its
    abstract). Defaults are this package's own.

    """
    if not epsilon > 0:
        raise ConfigError(f"sinkhorn: epsilon must be above 0, but it is {epsilon}.")
    if iterations < 1:
        raise ConfigError(f"sinkhorn: iterations must be at least 1, but it is {iterations}.")
    student, teacher = unit(matched_doc_vectors), unit(teacher_doc_vectors)

    if not len(student):  # a batch of queries alone
        return student.sum()

    def cost(x: Tensor, y: Tensor) -> Tensor:
        return _transport_cost(1.0 - x @ y.T, epsilon, iterations)

    return cost(student, teacher) - (cost(student, student) + cost(teacher, teacher)) / 2.0


def _sorted(scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Return the real scores of each list, best first, then zeros."""
    ranked = scores.masked_fill(~mask, LOWEST).sort(-1, descending=True).values
    positions = torch.arange(mask.shape[-1], device=mask.device)
    return ranked.masked_fill(positions >= mask.sum(-1, keepdim=True), 0.0)


def _transport_cost(
    costs: Float[Tensor, "M M"], epsilon: float, iterations: int
) -> Float[Tensor, ""]:
    """Return the regularised cost of transport between two uniform clouds, from its dual.

    `costs` holds the cost of each pair of points; the result is the sum of the mean potentials.
    """
    # Dual potentials of both clouds, M each, in logarithms so that a small epsilon is stable.
    log_count = math.log(len(costs))
    rows, columns = torch.zeros_like(costs[:, 0]), torch.zeros_like(costs[0])
    # Alternate: each side's potentials are optimal for those of the other side.
    for _ in range(iterations):
        rows = epsilon * (log_count - ((columns - costs) / epsilon).logsumexp(1))
        columns = epsilon * (log_count - ((rows[:, None] - costs) / epsilon).logsumexp(0))
    return rows.mean() + columns.mean()
