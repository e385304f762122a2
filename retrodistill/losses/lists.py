"""What the losses over lists share: which rows are lists, their order, numbers blind to padding.

Ties are broken by the place in the list: of two equal candidates, the earlier one is the better.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from retrodistill.errors import DataError

LOWEST = float("-inf")

NUMBERS = {1: "one real candidate", 2: "two real candidates", 3: "three real candidates"}


def real_lists(mask: Bool[Tensor, "B N"], loss: str, *, least: int = 2) -> Bool[Tensor, " B"]:
    """Tell which queries have a list: `least` real candidates, two if nothing is said.

    Raises:
        DataError: none has.

    """
    keep = mask.sum(-1) >= least
    if not keep.any():
        raise DataError(
            f"{loss} needs {NUMBERS[least]} for at least one query, "
            f"but the mask of shape {tuple(mask.shape)} leaves none. "
            "Mine more candidates, or raise --candidates-per-query."
        )
    return keep


def preferred(
    teacher_scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"], loss: str
) -> Bool[Tensor, "B N N"]:
    """Tell of which real pairs (i, j) the teacher scores i above j.

    Raises:
        DataError: of none.

    """
    above = teacher_scores[:, :, None] > teacher_scores[:, None, :]
    pairs = above & mask[:, :, None] & mask[:, None, :]
    if not pairs.any():
        raise DataError(
            f"{loss} needs two real candidates that the teacher scores differently for at least "
            f"one query, but the batch of shape {tuple(mask.shape)} holds none. Mine more "
            "candidates, raise --batch-size, or score with a teacher of finer grades."
        )
    return pairs


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
    logits: Float[Tensor, "*shape"], probabilities: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return KL([p, 1 - p] || [q, 1 - q]) in nats, where q is the logistic function of the logit.

    Finite where p is 0 or 1.
    """
    entropy: Tensor = torch.special.entr(probabilities) + torch.special.entr(1.0 - probabilities)
    cross: Tensor = binary_cross_entropy_with_logits(logits, probabilities, reduction="none")
    return cross - entropy


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
