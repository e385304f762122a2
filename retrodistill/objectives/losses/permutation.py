"""Ranking losses: likelihood of the teacher's ranking under the student, and smooth nDCG.

The ranking is that of the teacher's scores; of two equal scores, the earlier in the list ranks
higher. Only `listnet` and `approx_ndcg` use more of the scores than their order.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import (
    LOWEST,
    average,
    best_first,
    gains,
    masked_log_softmax,
    preferred,
    real_lists,
    remaining_logsumexp,
)


@loss
def listnet(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """ListNet: cross-entropy of the probabilities that a candidate ranks first.

    -sum of p_i ln q_i over the real candidates, with p and q the softmaxes of the teacher's and
    the student's scores, each over its temperature. In nats, averaged over the queries with two
    real candidates. It is `listwise_kl` plus the teacher's entropy, which does not depend on the
    student: same gradient, but not 0 at the teacher.

    Source: Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach",
    ICML (the top-one form).

    """
    keep = real_lists(mask)
    student = masked_log_softmax(student_scores / student_temperature, mask)
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask)
    return -average((teacher.exp() * student.masked_fill(~mask, 0.0)).sum(-1)[keep])


@loss
def listmle(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
) -> Float[Tensor, ""]:
    """ListMLE: negative log-likelihood of the teacher's ranking in the Plackett-Luce model.

    The Plackett-Luce model draws a ranking from the top, each time one of the remaining
    candidates, by a softmax of their scores over the temperature. The cost of rank k is
    ln(sum over the ranks l >= k of exp(s_l / T)) - s_k / T. In nats, a mean over the n - 1
    ranks of a list at which there is a choice (the published form is a sum), then over the
    queries with two real candidates. For a list of two, it equals `ranknet`.

    Source: Xia et al. 2008, "Listwise Approach to Learning to Rank: Theory and Algorithm", ICML.

    """
    position, length, keep = _positions(mask)
    weights = (position < length - 1).to(student_scores.dtype)
    costs = _choices(student_scores / student_temperature, teacher_scores, mask)
    return _weighted(costs, weights, keep)


@loss
def position_aware_listmle(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Position-aware ListMLE: likelihood of the teacher's ranking, the top ranks weighing more.

    Rank k (from 1) of a list of n weighs 2^(n - k) - 1, over the sum of these weights: about
    1/2, 1/4, 1/8, ... in a long list, and nothing for the last rank. In nats, a weighted mean
    over the ranks, then a mean over the queries with two real candidates.

    Source: Lan et al. 2014, "Position-Aware ListMLE: A Sequential Learning Process for
    Ranking", UAI; the division by the sum of the weights is this package's own.

    """
    position, length, keep = _positions(mask)
    # (2^(n - k) - 1) / 2^(n - 1), which does not overflow in a long list.
    halves = torch.exp2(-position.to(student_scores.dtype)) - torch.exp2(1.0 - length)
    costs = _choices(student_scores / student_temperature, teacher_scores, mask)
    return _weighted(costs, halves.clamp(min=0.0), keep)


@loss
def partial_pl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """Partial Plackett-Luce: negative log-likelihood of the first two ranks of the teacher.

    The first two choices of `listmle`; the order of the remaining candidates does not count. For a
    teacher that knows the best two of a list, such as a language model that was asked for a
    preference between two. In nats, a mean over the two choices (one in a list of two; the
    published form is a sum), then over the queries with two real candidates. Only the query's own
    candidates compete.

    Source: the second stage of Kim and Baek 2025, "Syntriever", arXiv:2502.03824, which adds
    a pull towards the student of its first stage.

    """
    position, length, keep = _positions(mask)
    weights = ((position < 2) & (position < length - 1)).to(student_scores.dtype)
    costs = _choices(student_scores / student_temperature, teacher_scores, mask)
    return _weighted(costs, weights, keep)


@loss
def partial_pl_in_batch(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    batch_scores: Float[Tensor, "B M"],
    batch_candidates: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    student_temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """Partial Plackett-Luce over the batch: the teacher's best, its second, then all others.

        -log( exp(s_1 / T) / (exp(s_1 / T) + exp(s_2 / T) + sum over the rest of exp(s_j / T)) )
        -log( exp(s_2 / T) / (               exp(s_2 / T) + sum over the rest of exp(s_j / T)) )

    The rest are the query's other candidates and every document of the other queries that
    `batch_mask` keeps, so that even the candidate that loses the preference stays above them:
    `contrastive` takes it for a negative, and `partial_pl` does not compare it with the batch.
    In nats, a mean over the two choices (the published form is a sum), then over the queries
    whose teacher prefers one of two real candidates.

    Source: the second stage of Kim and Baek 2025, "Syntriever", arXiv:2502.03824; the formula
    is that of its published code, whose lists are pairs.

    """
    keep = preferred(teacher_scores, mask).any(-1).any(-1)
    order = best_first(teacher_scores, mask)[keep]
    real = mask[keep].gather(-1, order)
    ranked = student_scores[keep].gather(-1, order) / student_temperature
    # K x N: what remains of the own list at each choice, and K x 1: what competes beside it.
    own = remaining_logsumexp(ranked, real)
    others = (batch_scores / student_temperature).masked_fill(
        ~(batch_mask & ~batch_candidates), LOWEST
    )
    beside = others[keep].logsumexp(-1, keepdim=True)
    return average((own.logaddexp(beside) - ranked)[:, :2])


@loss
def approx_ndcg(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
) -> Float[Tensor, ""]:
    """ApproxNDCG: 1 - nDCG of the student's ranking, with differentiable ranks.

    The rank of candidate i is 1 + sum over the others j of 1 / (1 + exp((s_i - s_j) / T)): a
    count of the candidates above it, exact as T goes to 0. nDCG is the sum of
    g_i / log2(1 + rank_i) divided by that of the teacher's ranking. Ranks change over differences
    of about T: a student of cosines needs one near 0.05, or all its ranks stay in the middle.

    The gain g is the teacher's score, scaled from 0 (worst of the list) to 1 (best): a teacher
    gives no grades for 2^grade - 1. Between 0 and 1, averaged over the queries in which the
    teacher scores two real candidates differently.

    Source: Qin, Liu and Li 2010, "A General Approximation Framework for Direct Optimization of
    Information Retrieval Measures", Information Retrieval 13; the gain is this package's own.

    """
    # Gains of the K queries whose teacher scores differ: K x N.
    keep = preferred(teacher_scores, mask).any(-1).any(-1)
    gain = gains(teacher_scores, mask)[keep]
    # Smooth rank of each candidate, by comparing it with all others: K x N x N, then K x N.
    scores = student_scores[keep] / student_temperature
    above = (scores[:, None, :] - scores[:, :, None]).sigmoid() * mask[keep][:, None, :]
    gained = gain / (above.sum(-1) + 1.5).log2()  # the sum includes 1/2 of the candidate itself
    # DCG over the DCG of the teacher's ranking.
    positions = torch.arange(gain.shape[-1], device=gain.device)
    ideal = gain.sort(-1, descending=True).values / (positions + 2.0).log2()
    return average(1.0 - gained.sum(-1) / ideal.sum(-1))


def _positions(
    mask: Bool[Tensor, "B N"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, "B 1"], Bool[Tensor, " B"]]:
    """Return the positions from 0, the numbers of real candidates, and which queries have two."""
    keep = real_lists(mask)
    position = torch.arange(mask.shape[-1], device=mask.device, dtype=torch.float32)
    return position, mask.sum(-1, keepdim=True, dtype=torch.float32), keep


def _choices(
    logits: Float[Tensor, "B N"], teacher_scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Return -ln of the probability of each choice, in the order of the teacher's ranking."""
    order = best_first(teacher_scores, mask)
    ranked = logits.gather(-1, order)
    return remaining_logsumexp(ranked, mask.gather(-1, order)) - ranked


def _weighted(
    costs: Float[Tensor, "B N"], weights: Float[Tensor, "B N"], keep: Bool[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted mean over the positions of a list, averaged over the lists to keep."""
    costs, weights = costs[keep], weights[keep]
    return average((costs * weights).sum(-1) / weights.sum(-1))
