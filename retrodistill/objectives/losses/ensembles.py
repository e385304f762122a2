"""Losses from several teachers at once, whose weights differ from query to query."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.objectives.losses.contract import StudentTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import masked_log_softmax, mean_kl


@loss
def confidence_weighted_kl(
    student_scores: Float[Tensor, "B N"],
    teachers: Float[Tensor, "E B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence from several teachers, of which a sure one counts more.

        KL( sum over teachers of w_k p_k || student ), p_k the softmax of teacher k's scores
        w_k = (1 - H(p_k) / sum over teachers of H(p_j)) / (K - 1)

    H is the entropy of a teacher's list, so the weights differ from query to query; they sum to 1.
    Where all teachers are wholly sure, weights are even, and one teacher has the weight 1. The
    objective names the K teachers and divides the scores of each by a temperature of its own, since
    their scales differ: `confidence-weighted-kl(teachers=teacher_scores/2&bi.scores/0.05)`.
    Lists are compared after that division: a teacher at a low temperature looks sure.

    The gradient is that of K terms of `listwise-kl` with these weights; the value is less, and 0
    at the mixture. A store of averaged scores, as `fuse` writes it, differs in two ways: its
    weights are the same for every query, and its softmax is a geometric mean of the teachers'. In
    nats, averaged over the queries that have two real candidates.

    Source: Kwon et al. 2020, "Adaptive Knowledge Distillation Based on Entropy", as in the code of
    Zhang et al. 2022, arXiv:2201.00007, which compares with it and leaves out the division by
    K - 1.

    """
    each = _log_softmaxes(teachers, mask)
    entropy = -(each.exp() * each).masked_fill(~mask, 0.0).sum(-1)
    total = entropy.sum(0)
    parts = entropy / torch.where(total > 0, total, 1.0)
    return _mixture_kl(student_scores / student_temperature, each, mask, parts, total > 0)


@loss
def agreement_weighted_kl(
    student_scores: Float[Tensor, "B N"],
    teachers: Float[Tensor, "E B N"],
    mask: Bool[Tensor, "B N"],
    labels: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence from several teachers, of which one that finds the labels counts more.

        KL( sum over teachers of w_k p_k || student ), p_k the softmax of teacher k's scores
        w_k = (1 - exp(c_k) / sum over teachers of exp(c_j)) / (K - 1)

    c_k is the mean of -ln p_k over the query's labelled candidates. Teachers are named as for
    `confidence-weighted-kl`, of which all else holds too. A query without a labelled candidate has
    even weights, and learns from all teachers.

    Source: the weights of CA-MKD, Zhang et al. 2022, "Confidence-Aware Multi-Teacher Knowledge
    Distillation", arXiv:2201.00007, as in its code, which also divides the loss by K; its term of
    intermediate layers is not here.

    """
    each, positive = _log_softmaxes(teachers, mask), labels & mask
    costs = -each.masked_fill(~positive, 0.0).sum(-1) / positive.sum(-1).clamp(min=1)
    labelled = positive.any(-1)
    return _mixture_kl(student_scores / student_temperature, each, mask, costs.softmax(0), labelled)


def _log_softmaxes(
    teachers: Float[Tensor, "E B N"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "E B N"]:
    return torch.stack([masked_log_softmax(scores, mask) for scores in teachers])


def _mixture_kl(
    logits: Float[Tensor, "B N"],
    log_p: Float[Tensor, "E B N"],
    mask: Bool[Tensor, "B N"],
    parts: Float[Tensor, "E B"],
    known: Bool[Tensor, " B"],
) -> Float[Tensor, ""]:
    """Return KL(mixture || student), where a teacher of a large part (parts sum to 1) counts less.

    Even weights where the parts are not `known`.
    """
    count = len(log_p)
    even = torch.full_like(parts, 1.0 / count)
    weights = torch.where(known, (1.0 - parts) / (count - 1), even) if count > 1 else even
    mixture = (log_p + weights.log()[:, :, None]).logsumexp(0)
    student = masked_log_softmax(logits, mask)
    return mean_kl(mixture, student, mask)
