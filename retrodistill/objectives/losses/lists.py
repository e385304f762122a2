"""What the losses over lists share: which rows are lists, their order, numbers blind to padding.

Ties are broken by the place in the list: of two equal candidates, the earlier one is the better.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

LOWEST = float("-inf")


def average(values: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Return the mean; of no values 0, with a gradient of 0, so that training continues."""
    return values.sum() / max(values.numel(), 1)


def real_lists(mask: Bool[Tensor, "B N"], *, least: int = 2) -> Bool[Tensor, " B"]:
    """Tell which queries have a list: `least` real candidates, two if nothing is said."""
    return mask.sum(-1) >= least


def preferred(
    teacher_scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Bool[Tensor, "B N N"]:
    """Tell of which real pairs (i, j) the teacher scores i above j."""
    above = teacher_scores[:, :, None] > teacher_scores[:, None, :]
    return above & mask[:, :, None] & mask[:, None, :]


def masked_log_softmax(
    scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Return log-probabilities over the real candidates; 0 for every entry of an empty row."""
    empty = ~mask.any(-1, keepdim=True)
    return scores.masked_fill(~mask & ~empty, LOWEST).log_softmax(-1).masked_fill(empty, 0.0)


def kl_terms(
    teacher: Float[Tensor, "B N"], student: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Return p (ln p - ln q) of each candidate from log-probabilities; 0 for padding."""
    return teacher.exp() * (teacher - student).masked_fill(~mask, 0.0)


def binary_kl(
    logits: Float[Tensor, "*shape"], teacher_logits: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return KL([p, 1 - p] || [q, 1 - q]) in nats, where q and p are logistic in the logits.

    Each part is a difference of logarithms: a cross-entropy less an entropy would round small
    divergences away. Finite where the teacher's logit is infinite.
    """
    teacher_logits = teacher_logits.nan_to_num()  # infinite ones become the largest number
    yes = logsigmoid(teacher_logits) - logsigmoid(logits)
    no = logsigmoid(-teacher_logits) - logsigmoid(-logits)
    return teacher_logits.sigmoid() * yes + (-teacher_logits).sigmoid() * no


def best_first(scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Return the places of the candidates, best score first, padding last."""
    return scores.masked_fill(~mask, LOWEST).argsort(dim=-1, descending=True, stable=True)


def gains(teacher_scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Return the gain of each candidate: 0 for the list's worst, 1 for its best, linear between.

    So any scale of scores will do, an exponential of raw logits is avoided, and candidates that
    the teacher scores nearly alike gain nearly alike. 0 for padding and for a list of one score.
    """
    lowest = teacher_scores.masked_fill(~mask, -LOWEST).amin(-1, keepdim=True)
    span = teacher_scores.masked_fill(~mask, LOWEST).amax(-1, keepdim=True) - lowest
    return ((teacher_scores - lowest) / span).masked_fill(~mask | ~(span > 0), 0.0)


def remaining_logsumexp(
    logits: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Return, at each place, the logsumexp over the real candidates from there to the list's end.

    A padded place counts itself too, so that no number is infinite. Memory is B N^2 numbers.
    """
    places = torch.arange(logits.shape[-1], device=logits.device)
    later = places > places[:, None]
    left = (later & mask[:, None, :]) | (places == places[:, None])
    return torch.where(left, logits[:, None, :], LOWEST).logsumexp(-1)
