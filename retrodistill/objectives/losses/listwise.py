"""Listwise distillation: divergences between teacher and student over a query's candidates."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import (
    average,
    best_first,
    binary_kl,
    kl_terms,
    masked_log_softmax,
    mean_kl,
    real_lists,
)

RESOLUTION = 64
"""Standard deviation, in units of the last digit of the largest score, up to which the scores of
a list count as equal."""


@loss(zero_at={"student_scores": "teacher_scores"})
def listwise_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence: KL(teacher || student) of softmaxes over a query's candidates.

    In nats, averaged over the queries that have two real candidates. Each side is divided by
    its own temperature. There is no factor of the student's temperature squared: at 0.05 it would
    be 1/400, and an added term would dominate the objective. So the gradient grows as 1 / T, as
    that of a contrastive loss does.

    Source: Hinton et al. 2015, arXiv:1503.02531, whose factor T^2 is left to the term's weight.

    """
    student = masked_log_softmax(student_scores / student_temperature, mask)
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask)
    return mean_kl(teacher, student, mask)


@loss(zero_at={"student_scores": "teacher_scores"})
def top_k_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    k: int = 4,
    factor: float = 2.0,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence in which the teacher's `k` best candidates count `factor` times.

    sum over candidates i of w_i (p_i ln(p_i / q_i) - p_i + q_i), with p and q as in
    `listwise_kl`, w = `factor` for the teacher's k best and 1 for the others. Each term is 0 at
    p_i = q_i and positive elsewhere, so the loss is never negative and 0 only at the teacher,
    whatever the weights; weighting the plain terms p ln(p / q) would allow negative values and
    draw the student away from the teacher. With a factor of 1 it is `listwise_kl`.

    In nats, averaged over the queries that have two real candidates. Of two candidates with equal
    teacher scores, the earlier in the list ranks higher.

    Raises:
        ConfigError: `k` is below 1, or `factor` is not above 0.

    Source: the amplification of the top k has no settled definition; this one is this
    package's own, a weighted generalised KL (Csiszar's I-divergence).

    """
    if k < 1:
        raise ConfigError(f"top_k_kl: k must be at least 1, but it is {k}.")
    if not factor > 0:
        raise ConfigError(f"top_k_kl: factor must be above 0, but it is {factor}.")
    keep = real_lists(mask)
    student = masked_log_softmax(student_scores / student_temperature, mask)
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask)
    terms = kl_terms(teacher, student, mask) - teacher.exp() + student.exp()
    top = best_first(teacher_scores, mask).argsort(-1) < k
    return average(torch.where(top, factor * terms, terms).sum(-1)[keep])


@loss(zero_at={"student_scores": "teacher_scores"}, least_candidates=3)
def standardised_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence of standardised scores: mean 0, deviation 1 in each list.

    Mean and (population) standard deviation run over the list's real candidates; the softmaxes
    are then those of `listwise_kl`. The student learns the proportions of the teacher's scores,
    not their scale: adding a constant to either side of a list, or multiplying it by a positive
    number, changes nothing. The price is the teacher's confidence: lists that it is sure of and
    lists that it is unsure of look the same. A list of equal scores becomes uniform.

    In nats, averaged over the queries with three real candidates: two standardised scores are
    always 1 and -1, so a list of two teaches nothing. Temperatures are those of standardised
    scores, near 1, and there is no factor of their square.

    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation",
    arXiv:2403.01427 (from its abstract; there is no weight of the method's own here).

    """
    student = masked_log_softmax(_standardised(student_scores, mask) / student_temperature, mask)
    teacher = masked_log_softmax(_standardised(teacher_scores, mask) / teacher_temperature, mask)
    return mean_kl(teacher, student, mask, least=3)


@loss(zero_at={"student_scores": "teacher_scores"})
def sampled_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    log_weights: Float[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence over a long list, estimated from a weighted sample of it.

    Candidate i stands for exp(`log_weights`_i) candidates: that logarithm is added to its
    score on both sides, after the temperature; otherwise this is `listwise_kl`:

        p_i = w_i exp(t_i / T) / sum over the sample of w_j exp(t_j / T), w_i = 1 / pi_i

    and likewise q_i, where pi_i is the probability that i is in the sample: 1 for a candidate
    that is always kept (logarithm 0), otherwise that of the negative sampling `importance`, which
    draws without replacement. The three sums in the loss, of w exp(t / T), w exp(s / T) and
    w exp(t / T) (t / T - s / T), are then unbiased estimates of the sums over the whole list. The
    loss itself, made of their quotients and logarithms, has a bias that falls with the size of the
    sample and is 0 for the whole list. Without the weights, a student learns that the list ends
    where the sample does.

    In nats, averaged over the queries that have two real candidates.

    Source: Anshumann et al. 2025, "Sparse Logit Sampling: Accelerating Knowledge Distillation
    in LLMs", arXiv:2503.16870 (from its abstract): the idea, for lists of candidates; the weights
    of a draw without replacement: Horvitz and Thompson 1952.

    """
    keep = real_lists(mask)
    student = masked_log_softmax(student_scores / student_temperature + log_weights, mask)
    teacher = masked_log_softmax(teacher_scores / teacher_temperature + log_weights, mask)
    return average(kl_terms(teacher, student, mask).sum(-1)[keep])


@loss
def fused_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    labels: Bool[Tensor, "B N"],
    trusted_negatives: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Listwise KL divergence and label cross-entropy, weighted by how far teacher and labels agree.

    a KL(teacher || student) + (1 - a) CE(labels, student), where `a` is the probability that
    the teacher gives to the labelled candidates together. Where the teacher finds them, the student
    learns its whole distribution; where it does not, the student learns the labels. CE is the
    mean of -ln q_i over the labelled candidates, so several of them should share q evenly; its q
    is the student's softmax over those and the `trusted_negatives` alone, as other candidates may
    be relevant too. A query without a labelled candidate has a = 1.

    In nats, averaged over the queries that have two real candidates.

    Source: the sum of both terms is Hinton et al. 2015, arXiv:1503.02531; its weight for each
    query is this package's own.

    """
    keep = real_lists(mask)
    positive = labels & mask
    student = masked_log_softmax(student_scores / student_temperature, mask)
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask)
    trust = teacher.exp().masked_fill(~positive, 0.0).sum(-1)
    trust = torch.where(positive.any(-1), trust, 1.0)
    distilled = kl_terms(teacher, student, mask).sum(-1)
    choice = masked_log_softmax(
        student_scores / student_temperature, positive | (trusted_negatives & mask)
    )
    labelled = -choice.masked_fill(~positive, 0.0).sum(-1) / positive.sum(-1).clamp(min=1)
    return average((trust * distilled + (1.0 - trust) * labelled)[keep])


@loss(zero_at={"student_scores": "teacher_scores"})
def one_vs_rest(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Binary (pointwise) KL divergence: each candidate is relevant or not, on its own.

    KL(teacher || student), where the probability of relevance is the logistic function of the
    score over its side's temperature. So the student learns scores that are comparable between
    queries, and a list without a relevant candidate teaches exactly that, which a softmax cannot
    express. It requires a calibrated teacher: adding a constant to its scores changes the loss.

    In nats, averaged over all real candidates of the batch, so a query with more candidates
    weighs more.

    Source: Yang et al. 2023, "Multi-Label Knowledge Distillation", arXiv:2308.06453 (from its
    abstract), for the split into binary problems.

    """
    student, teacher = student_scores / student_temperature, teacher_scores / teacher_temperature
    return average(binary_kl(student, teacher)[mask])


def _standardised(scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Return scores with mean 0 and deviation 1 over the real candidates; equal scores near 0.

    Scores count as equal where their deviation is rounding, which would otherwise be amplified.
    """
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    mean = scores.masked_fill(~mask, 0.0).sum(-1, keepdim=True) / count
    centred = (scores - mean).masked_fill(~mask, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / count
    equal = RESOLUTION * torch.finfo(scores.dtype).eps * scores.detach().abs().amax(-1, True)
    return centred / torch.where(variance > equal.square(), variance, 1.0).sqrt()
