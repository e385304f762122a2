"""Losses over the list of candidates of one query."""

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
    real_lists,
)

RESOLUTION = 64
"""Standard deviation of a list, in units of the last digit of its largest score, up to which its
scores count as equal."""


@loss(zero_at={"student_scores": "teacher_scores"})
def listwise_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """KL(teacher || student) between the softmaxes over each query's real candidates.

    In nats, averaged over the queries that have two real candidates. Each side is divided by
    its own temperature. There is no factor of the student's temperature squared: at 0.05 it would
    be 1/400, and whatever is added to the loss would be trained nearly alone. So the gradient
    grows as 1 / T, as that of a contrastive loss does.

    Source: Hinton et al. 2015, arXiv:1503.02531, whose factor T^2 is left to the term's weight.

    """
    keep = real_lists(mask)
    student = masked_log_softmax(student_scores / student_temperature, mask)
    teacher = masked_log_softmax(teacher_scores / teacher_temperature, mask)
    return average(kl_terms(teacher, student, mask).sum(-1)[keep])


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
    """KL(teacher || student) in which the teacher's `k` best candidates count `factor` times.

    sum over candidates i of w_i (p_i ln(p_i / q_i) - p_i + q_i), with p and q as in
    `listwise_kl`, w = `factor` for the teacher's k best and 1 for the others. Each term is 0 at
    p_i = q_i and positive elsewhere, so the loss is never negative and 0 only at the teacher,
    whatever the weights; weighting the plain terms p ln(p / q) would allow negative values and
    draw the student away from the teacher. With a factor of 1 it is `listwise_kl`.

    In nats, averaged over the queries that have two real candidates. Of two candidates that the
    teacher scores alike, the earlier in the list is the better.

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
    """KL(teacher || student) of scores brought to mean 0 and deviation 1 in each list.

    Mean and (population) standard deviation run over the list's real candidates; the softmaxes
    are then those of `listwise_kl`. The student takes over the proportions of the teacher's
    scores, not their scale: adding a constant to either side of a list, or multiplying it by a
    positive number, changes nothing. What that gives up is the teacher's confidence: a list of
    which it is sure and one of which it is not look alike. A list of equal scores is uniform.

    In nats, averaged over the queries with three real candidates: of two, one stands at 1 and
    the other at -1, whatever the scores, so there is nothing to learn from. Temperatures are
    those of standardised scores, near 1, and there is no factor of their square.

    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation",
    arXiv:2403.01427 (from its abstract; there is no weight of the method's own here).

    """
    keep = real_lists(mask, least=3)
    student = masked_log_softmax(_standardised(student_scores, mask) / student_temperature, mask)
    teacher = masked_log_softmax(_standardised(teacher_scores, mask) / teacher_temperature, mask)
    return average(kl_terms(teacher, student, mask).sum(-1)[keep])


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
    """KL(teacher || student) over a long list of which only a sample is at hand.

    Candidate i stands for exp(`log_weights`_i) candidates: that logarithm is added to its
    score, after the temperature, on both sides, and the rest is `listwise_kl`:

        p_i = w_i exp(t_i / T) / sum over the sample of w_j exp(t_j / T), w_i = 1 / pi_i

    and q_i alike, where pi_i is the probability that i is in the sample at all: 1 for a candidate
    that is always kept (logarithm 0), for the others that of the draw `importance`, in which
    nothing is drawn twice. The three sums in the loss, of w exp(t / T), w exp(s / T) and
    w exp(t / T) (t / T - s / T), then have those of the whole list as their means. The loss
    itself, their quotients and logarithms, has a bias that falls with the size of the sample and
    is 0 at the whole list. Without the weights, a student learns that the list ends where the
    sample does.

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
    """Trust the teacher of a query as far as it trusts the query's labels.

    a KL(teacher || student) + (1 - a) CE(labels, student), where `a` is the probability that
    the teacher gives to the labelled candidates together. Where it finds them, the student
    learns its whole distribution; where it does not, the student learns the labels. CE is the
    mean of -ln q_i over the labelled candidates, so several of them are to share q evenly; its q
    is the student's softmax over those and the `trusted_negatives` alone, as the others may be
    relevant too. A query without a labelled candidate has a = 1.

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
    """KL(teacher || student) of each candidate alone: relevant, or not.

    The probability of relevance is the logistic function of the score over its side's
    temperature. So the student learns scores that mean the same for every query, and a list
    without a relevant candidate teaches that there is none, which a softmax cannot say. It asks
    for a calibrated teacher: adding a constant to its scores does change the loss.

    In nats, averaged over all real candidates of the batch, so a query with more candidates
    weighs more.

    Source: Yang et al. 2023, "Multi-Label Knowledge Distillation", arXiv:2308.06453 (from its
    abstract), for the split into binary problems.

    """
    student, teacher = student_scores / student_temperature, teacher_scores / teacher_temperature
    return average(binary_kl(student, teacher)[mask])


def _standardised(scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Return scores of mean 0 and deviation 1 over the real candidates; equal ones near 0.

    Scores are equal where their deviation is that of rounding, which would otherwise be blown up.
    """
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    mean = scores.masked_fill(~mask, 0.0).sum(-1, keepdim=True) / count
    centred = (scores - mean).masked_fill(~mask, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / count
    equal = RESOLUTION * torch.finfo(scores.dtype).eps * scores.detach().abs().amax(-1, True)
    return centred / torch.where(variance > equal.square(), variance, 1.0).sqrt()
