"""Pairwise losses: score differences between two candidates of a query."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contract import (
    ScaleFree,
    StudentTemperature,
    TeacherTemperature,
)
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import (
    average,
    best_first,
    binary_kl,
    gains,
    of_unit_size,
    preferred,
)

SMALLEST = torch.finfo(torch.float32).tiny
"""Lower bound of a sum of weights that is divided by."""


@loss(zero_at={"student_scores": "teacher_scores"})
def margin_mse(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
    scaled: ScaleFree = False,
) -> Float[Tensor, ""]:
    """Margin-MSE: squared error between the student's and the teacher's score margins.

    The margin of candidate j is score[0] - score[j]; candidate 0 is the positive. Margins are
    divided by the temperature of their side: a student of cosines needs one near 0.05 to reach
    the margins of a teacher of logits. The mean runs over all real pairs of the batch, so a
    query with more candidates weighs more. In squared units of the teacher's scores.

    Adding a constant to a query's teacher scores changes nothing; multiplying them does, so
    the student learns the teacher's scale.

    `scaled` is for bounded teachers (cosines, probabilities), whose scale should not reach the
    student: the margins of each side are divided by the root mean square of all real margins of
    that side in the batch. Then only their proportions count; temperatures have no effect, and
    the loss, without a unit, is 0 where the student's margins are the teacher's times a
    positive number. It lies between 0 and 4. A side whose margins are all 0 is not scaled.

    Source: Hofstaetter et al. 2020, arXiv:2010.02666. `scaled` is this package's own.

    """
    real = mask[:, :1] & mask[:, 1:]
    student = ((student_scores[:, :1] - student_scores[:, 1:]) / student_temperature)[real]
    teacher = ((teacher_scores[:, :1] - teacher_scores[:, 1:]) / teacher_temperature)[real]
    if scaled:
        student, teacher = of_unit_size(student), of_unit_size(teacher)
    return average((student - teacher).square())


@loss
def ranknet(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
) -> Float[Tensor, ""]:
    """RankNet: logistic loss of every pair of candidates that the teacher scores differently.

    ln(1 + exp(-(s_i - s_j) / T)) for each real pair in which the teacher scores i above j. In
    nats, a mean over all such pairs of the batch (the published form is a sum), so a query with
    more candidates weighs more. Only the teacher's order counts; candidates with equal scores
    form no pair.

    Source: Burges et al. 2005, "Learning to Rank using Gradient Descent"; over the permutation
    of a language model as in Sun et al. 2023, arXiv:2304.09542.

    """
    pairs = preferred(teacher_scores, mask)
    return average(_logistic(student_scores / student_temperature)[pairs])


@loss
def lambdarank(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    depth: int = 10,
) -> Float[Tensor, ""]:
    """LambdaRank: RankNet with each pair weighted by the change of nDCG@depth if swapped.

    sum of w_ij ln(1 + exp(-(s_i - s_j) / T)) over the pairs of `ranknet`, divided by the sum of
    w_ij: a weighted mean in nats, whose size depends on neither the length of the lists nor the
    scale of the gains. w_ij = |g_i - g_j| |d_i - d_j| / ideal DCG, with the discount
    d = 1 / log2(1 + rank) in the student's current ranking, 0 beyond `depth`. Weights have no
    gradient.

    The gain g is the teacher's score, scaled from 0 (worst of the list) to 1 (best): a teacher
    gives no grades for 2^grade - 1, and swapping two candidates with nearly equal scores should
    cost nearly nothing.

    Raises:
        ConfigError: `depth` is below 1.

    Source: Burges 2010, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82; the
    normalisation and the gain are this package's own.

    """
    if depth < 1:
        raise ConfigError(f"lambdarank: depth must be at least 1, but it is {depth}.")
    # Gains from the teacher, discounts from the student's ranking: B x N.
    pairs = preferred(teacher_scores, mask)
    gain = gains(teacher_scores, mask)
    ranks = best_first(student_scores.detach(), mask).argsort(-1)
    positions = torch.arange(ranks.shape[-1], device=ranks.device)
    discounts = _discounts(ranks, depth)
    ideal = (gain.sort(-1, descending=True).values * _discounts(positions, depth)).sum(-1)
    # Change of nDCG when a pair is swapped, as the weight of its logistic loss: B x N x N.
    swaps = (_differences(gain) * _differences(discounts)).abs()
    weights = (swaps / ideal[:, None, None])[pairs]
    costs = _logistic(student_scores / student_temperature)[pairs]
    return (weights * costs).sum() / weights.sum().clamp_min(SMALLEST)


@loss
def preference_kl(
    student_scores: Float[Tensor, "B N"],
    preferences: Float[Tensor, "B N N"],
    preference_mask: Bool[Tensor, "B N N"],
    *,
    student_temperature: StudentTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Pairwise KL divergence from a teacher's preferences between two candidates (PairDistill).

    KL([p_ij, 1 - p_ij] || softmax([s_i, s_j] / T)), where `preferences` holds ln p_ij. In nats,
    averaged over the entries of `preference_mask`: a pair that was compared in both directions
    counts twice, with the same value if the directions agree. 0 where s_i - s_j is T times the
    teacher's log-odds; inconsistent preferences (i over j over k over i) have a higher minimum.

    Source: the pairwise term of Huang and Chen 2024, "PairDistill", arXiv:2410.01383.

    """
    margins = _differences(student_scores / student_temperature)[preference_mask]
    better = preferences[preference_mask].clamp(max=0.0)
    return average(binary_kl(margins, better - torch.log(-torch.expm1(better))))


def _differences(values: Float[Tensor, "B N"]) -> Float[Tensor, "B N N"]:
    return values[:, :, None] - values[:, None, :]


def _logistic(scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N N"]:
    return softplus(-_differences(scores))


def _discounts(ranks: Int[Tensor, "*shape"], depth: int) -> Float[Tensor, "*shape"]:
    """Return 1 / log2(1 + rank) for ranks that count from 0; 0 at `depth` and beyond."""
    return (ranks + 2.0).log2().reciprocal().masked_fill(ranks >= depth, 0.0)
