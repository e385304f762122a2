"""Losses over the list of candidates of one query."""

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.errors import DataError

LOWEST = float("-inf")


def listwise_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    squared: bool = True,
) -> Float[Tensor, ""]:
    """KL(teacher || student) between the softmaxes over each query's real candidates.

    In nats, averaged over the queries that have two real candidates. Each side is divided by
    its own temperature. With `squared`, the loss is multiplied by the student's temperature
    squared, so that the size of its gradient does not depend on it; switch that off to add the
    loss to a contrastive one of the same temperature.

    Raises:
        DataError: no query has two real candidates.

    Source: Hinton et al. 2015, arXiv:1503.02531, for the temperature and its square.

    """
    keep = _lists(mask, "listwise_kl")
    student = _log_softmax(student_scores / student_temperature, mask)
    teacher = _log_softmax(teacher_scores / teacher_temperature, mask)
    gap = (teacher - student).masked_fill(~mask, 0.0)
    loss = (teacher.exp() * gap).sum(-1)[keep].mean()
    return loss * student_temperature**2 if squared else loss


def listwise_kl_in_batch(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    batch_scores: Float[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    student_temperature: float = 0.05,
    teacher_temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """KL(teacher || student) where the student's softmax runs over the whole batch.

    The teacher spreads its probability over the query's own candidates and gives none to the
    other documents of the batch; the student has to keep those down as well. So a short list
    carries the signal of in-batch negatives that `listwise_kl` lacks. In nats, averaged over
    the queries with two real candidates; 0 only where the student gives the rest of the batch
    nothing. There is no factor of the temperature squared, as in a contrastive loss.

    Raises:
        DataError: no query has two real candidates.

    Source: the soft form of the in-batch targets of M3-Embedding, Chen et al. 2024,
    arXiv:2402.03216.

    """
    keep = _lists(mask, "listwise_kl_in_batch")
    total = (batch_scores / student_temperature).masked_fill(~batch_mask, LOWEST).logsumexp(-1)
    student = student_scores / student_temperature - total[:, None]
    teacher = _log_softmax(teacher_scores / teacher_temperature, mask)
    gap = (teacher - student).masked_fill(~mask, 0.0)
    return (teacher.exp() * gap).sum(-1)[keep].mean()


def in_batch_kl(
    batch_scores: Float[Tensor, "B M"],
    teacher_query_vectors: Float[Tensor, "B D"],
    teacher_doc_vectors: Float[Tensor, "M D"],
    *,
    student_temperature: float = 0.05,
    teacher_temperature: float = 0.05,
) -> Float[Tensor, ""]:
    """KL(teacher || student) over all documents of the batch; the teacher is a bi-encoder.

    Its inner products come from stored vectors, so that every query of the batch has a score of
    every document at no cost: long lists, in which a relevant document of another query is no
    plain negative. In nats, averaged over queries, without a factor of the temperature squared.

    Source: Lin, Yang and Lin 2021, "In-Batch Negatives for Knowledge Distillation with
    Tightly-Coupled Teachers for Dense Retrieval" (TCT-ColBERT), whose teacher is a ColBERT.

    """
    student = (batch_scores / student_temperature).log_softmax(-1)
    scores = teacher_query_vectors @ teacher_doc_vectors.T
    teacher = (scores / teacher_temperature).log_softmax(-1)
    return (teacher.exp() * (teacher - student)).sum(-1).mean()


def _lists(mask: Bool[Tensor, "B N"], loss: str) -> Bool[Tensor, " B"]:
    """Tell which queries have a list: two real candidates at least."""
    keep = mask.sum(-1) >= 2
    if not keep.any():
        raise DataError(
            f"{loss} needs two real candidates for at least one query, "
            f"but the mask of shape {tuple(mask.shape)} leaves none. "
            "Mine more candidates, or raise --candidates-per-query."
        )
    return keep


def _log_softmax(scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Return log-probabilities over the real candidates; 0 for every entry of an empty row."""
    empty = ~mask.any(-1, keepdim=True)
    return scores.masked_fill(~mask & ~empty, LOWEST).log_softmax(-1).masked_fill(empty, 0.0)
