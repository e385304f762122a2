"""Losses in which a query's candidates stand against the other documents of the batch."""

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import (
    LOWEST,
    average,
    kl_terms,
    masked_log_softmax,
    real_lists,
    remaining_logsumexp,
)


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
    """KL(teacher || student) where the student's softmax runs over the whole batch.

    The teacher spreads its probability over the query's own candidates and gives none to the
    other documents of the batch; the student has to keep those down as well. So a short list
    carries the signal of in-batch negatives that `listwise_kl` lacks. In nats, averaged over
    the queries with two real candidates; 0 only where the student gives the rest of the batch
    nothing. There is no factor of the temperature squared, as in a contrastive loss.

    Source: the soft form of the in-batch targets of M3-Embedding, Chen et al. 2024,
    arXiv:2402.03216.

    """
    keep = real_lists(mask)
    compared = (
        batch_mask | batch_candidates
    )  # the teacher spoke of its own, doubtful negatives or not
    total = (batch_scores / student_temperature).masked_fill(~compared, LOWEST).logsumexp(-1)
    student = student_scores / student_temperature - total[:, None]
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask)
    return average(kl_terms(teacher, student, mask).sum(-1)[keep])


@loss
def in_batch_kl(
    batch_scores: Float[Tensor, "B M"],
    teacher_query_vectors: Float[Tensor, "B T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
    *,
    student_temperature: StudentTemperature = 0.05,
    teacher_temperature: TeacherTemperature = 0.05,
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
    """Cross-entropy over the batch with each candidate as the target, weighted by the teacher.

    sum over candidates i of p_i (ln Z_i - s_i / T), with p the teacher's softmax over the
    query's real candidates. Z_i sums exp(s / T) over candidate i, the query's candidates behind
    it in the list (whatever `batch_mask` says of them), and the other documents of the batch
    that `batch_mask` leaves in: a candidate that was a target already is no negative of a later
    one. The order is that of the list, the positive first, as published, not the teacher's.

    In nats, averaged over the queries with two real candidates, without a factor of the
    temperature squared. It is above 0 at the teacher: each target is to win its own softmax.

    Source: Chen et al. 2024, "M3-Embedding", arXiv:2402.03216; the masking is that of its
    published code.

    """
    keep = real_lists(mask)
    own = student_scores / student_temperature
    negatives = batch_mask & ~batch_candidates
    rest = (batch_scores / student_temperature).masked_fill(~negatives, LOWEST).logsumexp(-1)
    total = remaining_logsumexp(own, mask).logaddexp(rest[:, None])
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask).exp()
    return average((teacher * (total - own).masked_fill(~mask, 0.0)).sum(-1)[keep])
