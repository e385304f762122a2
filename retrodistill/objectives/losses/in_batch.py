"""Listwise losses with in-batch negatives: candidates against the other documents of the batch."""

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import (
    LOWEST,
    average,
    masked_log_softmax,
    mean_kl,
    real_lists,
    remaining_logsumexp,
)
from retrodistill.objectives.losses.live import batch_kl


@loss
def listwise_kl_in_batch(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    batch_scores: Float[Tensor, "B M"],
    batch_candidates: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    student_temperature: StudentTemperature = 0.05,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence whose student softmax runs over the whole batch.

    KL(teacher || student). The teacher's probability lies on the query's own candidates, with none
    on the other documents of the batch; the student has to score those low as well. So a short
    list adds the in-batch negatives that `listwise_kl` lacks. In nats, averaged over
    the queries with two real candidates; 0 only where the student gives the rest of the batch
    nothing. There is no factor of the temperature squared, as in a contrastive loss.

    Source: the soft form of the in-batch targets of M3-Embedding, Chen et al. 2024,
    arXiv:2402.03216.

    """
    # The teacher scored the query's candidates, so they count even where `batch_mask` drops them.
    compared = batch_mask | batch_candidates
    total = (batch_scores / student_temperature).masked_fill(~compared, LOWEST).logsumexp(-1)
    student = student_scores / student_temperature - total[:, None]
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask)
    return mean_kl(teacher, student, mask)


@loss
def in_batch_kl(
    batch_scores: Float[Tensor, "B M"],
    teacher_query_vectors: Float[Tensor, "A T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
    *,
    student_temperature: StudentTemperature = 0.05,
    teacher_temperature: TeacherTemperature = 0.05,
) -> Float[Tensor, ""]:
    """KL divergence over all documents of the batch, from a bi-encoder teacher's vectors.

    KL(teacher || student). The teacher's inner products come from stored vectors, so that it
    scores every document of the batch for every query at no cost: long lists, in which a relevant
    document of another query is not a plain negative. In nats, averaged over queries, without a
    factor of the temperature squared.

    Source: Lin, Yang and Lin 2021, "In-Batch Negatives for Knowledge Distillation with
    Tightly-Coupled Teachers for Dense Retrieval" (TCT-ColBERT), whose teacher is a ColBERT.

    """
    divergence: Tensor = batch_kl(
        batch_scores,
        teacher_query_vectors[: len(batch_scores)] @ teacher_doc_vectors.T,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )
    return divergence


@loss
def m3_kd(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    batch_scores: Float[Tensor, "B M"],
    batch_candidates: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    student_temperature: StudentTemperature = 0.02,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Distillation loss of M3-Embedding: in-batch cross-entropy, weighted by the teacher.

    sum over candidates i of p_i (ln Z_i - s_i / T), with p the teacher's softmax over the
    query's real candidates. Z_i sums exp(s / T) over candidate i, the query's candidates after
    it in the list (whatever `batch_mask` says of them), and the other documents of the batch
    that `batch_mask` keeps: a candidate that has been a target does not count as a negative of a
    later one. The order is that of the list, the positive first, as published, not the teacher's.

    In nats, averaged over the queries with two real candidates, without a factor of the
    temperature squared. It is above 0 at the teacher: each target has to win its own softmax.

    Source: Chen et al. 2024, "M3-Embedding", arXiv:2402.03216; the masking is that of its
    published code.

    """
    keep = real_lists(mask)
    logits = student_scores / student_temperature
    # ln Z_i: remaining candidates of the list and in-batch negatives.
    negatives = batch_mask & ~batch_candidates
    in_batch = (batch_scores / student_temperature).masked_fill(~negatives, LOWEST).logsumexp(-1)
    total = remaining_logsumexp(logits, mask).logaddexp(in_batch[:, None])
    # Cross-entropy of each candidate, weighted by the teacher's probability.
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask).exp()
    return average((teacher * (total - logits).masked_fill(~mask, 0.0)).sum(-1)[keep])
