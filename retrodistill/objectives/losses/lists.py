"""Helpers of the listwise losses: softmax, ranking and gains that ignore padding.

Ties are broken by the position in the list: of two equal candidates, the earlier ranks higher.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

LOWEST = float("-inf")


def average(values: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Return the mean, or 0 with a gradient of 0 if there are no values, so training continues."""
    return values.sum() / max(values.numel(), 1)


def of_unit_size(values: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Return the values divided by their root mean square; unchanged if all are 0."""
    square = average(values.square())
    return values / torch.where(square > 0, square, 1.0).sqrt()


def real_lists(mask: Bool[Tensor, "B N"], *, least: int = 2) -> Bool[Tensor, " B"]:
    """Return which queries have at least `least` real candidates."""
    return mask.sum(-1) >= least


def preferred(
    teacher_scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Bool[Tensor, "B N N"]:
    """Return for which pairs (i, j) of real candidates the teacher scores i above j."""
    above = teacher_scores[:, :, None] > teacher_scores[:, None, :]
    return above & mask[:, :, None] & mask[:, None, :]


def masked_log_softmax(
    scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Return log-probabilities over the real candidates; all 0 in a row without one."""
    empty = ~mask.any(-1, keepdim=True)
    return scores.masked_fill(~mask & ~empty, LOWEST).log_softmax(-1).masked_fill(empty, 0.0)


def kl_terms(
    teacher: Float[Tensor, "B N"], student: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Return p (ln p - ln q) of each candidate from log-probabilities; 0 for padding."""
    return teacher.exp() * (teacher - student).masked_fill(~mask, 0.0)


def mean_kl(
    teacher: Float[Tensor, "B N"],
    student: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    least: int = 2,
) -> Float[Tensor, ""]:
    """Return KL(teacher || student) from log-probabilities, averaged over the `real_lists`."""
    return average(kl_terms(teacher, student, mask).sum(-1)[real_lists(mask, least=least)])


def binary_kl(
    logits: Float[Tensor, "*shape"], teacher_logits: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return KL([p, 1 - p] || [q, 1 - q]) in nats, where q and p are logistic in the logits.

    Each term is a difference of logarithms: cross-entropy minus entropy would lose small
    divergences to rounding. Finite where the teacher's logit is infinite.
    """
    teacher_logits = teacher_logits.nan_to_num()  # infinity becomes the largest number
    yes = logsigmoid(teacher_logits) - logsigmoid(logits)
    no = logsigmoid(-teacher_logits) - logsigmoid(-logits)
    return teacher_logits.sigmoid() * yes + (-teacher_logits).sigmoid() * no


def best_first(scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Return the candidates' positions, best score first, padding last."""
    return scores.masked_fill(~mask, LOWEST).argsort(dim=-1, descending=True, stable=True)


def gains(teacher_scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Return the gain of each candidate: 0 for the list's worst, 1 for its best, linear between.

    Gains are independent of the scale of the scores, avoid an exponential of raw logits, and are
    nearly equal for nearly equal scores. 0 for padding and for lists of equal scores.
    """
    lowest = teacher_scores.masked_fill(~mask, -LOWEST).amin(-1, keepdim=True)
    span = teacher_scores.masked_fill(~mask, LOWEST).amax(-1, keepdim=True) - lowest
    return ((teacher_scores - lowest) / span).masked_fill(~mask | ~(span > 0), 0.0)


def remaining_logsumexp(
    logits: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Return, at each position, the logsumexp over the real candidates from there to the end.

    A padded position includes itself, so that no value is infinite. Memory is B N^2 numbers.
    """
    positions = torch.arange(logits.shape[-1], device=logits.device)
    later = positions > positions[:, None]
    remaining = (later & mask[:, None, :]) | (positions == positions[:, None])
    return torch.where(remaining, logits[:, None, :], LOWEST).logsumexp(-1)
