"""Losses that look at a frozen base model beside the teacher or the labels."""

from jaxtyping import Bool, Float
from torch import Tensor, where

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average, masked_log_softmax, mean_kl
from retrodistill.objectives.losses.positives import choice_nll, labelled_pairs


@loss(exact_gradient=False)
def gcse(
    batch_scores: Float[Tensor, "B M"],
    teacher_batch_scores: Float[Tensor, "B M"],
    batch_candidates: Bool[Tensor, "B M"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: StudentTemperature = 0.05,
    teacher_temperature: TeacherTemperature = 0.05,
    width: float = 0.17,
) -> Float[Tensor, ""]:
    """InfoNCE in which hard negatives that a base model finds as near lose their weight (GCSE).

        z = s / T,  b = base score / T_b,  G = exp(-(z - b)^2 / (2 width^2)) if z <= b, else 0
        logit of a hard negative = z (1 - G),  of every other document z

    The base model is a frozen one, as a rule what the student was before: a live teacher,
    `--teacher base=bi-encoder:STUDENT`, in `gcse(teacher_batch_scores=base.batch_scores)`. A hard
    negative near its base score may be relevant, and its logit is brought to 0; once the student
    scores it far below, or above, it counts in full. So a training starts without its hard
    negatives, and a width near 0 makes this `contrastive`. Hard negatives are the query's
    own unlabelled candidates; documents of other queries are never decayed. The factor has no
    gradient. In nats, averaged over the labelled pairs.

    Raises:
        ConfigError: the width is not above 0.

    Source: GCSE, Lai et al. 2024, "Enhancing Unsupervised Sentence Embeddings via
    Knowledge-Driven Data Augmentation and Gaussian-Decayed Contrastive Learning", as in its code,
    which has one hard negative for each text, made by a language model, and 0.17 for BERT.

    """
    if not width > 0:
        raise ConfigError(f"gcse: width must be above 0, but it is {width}.")
    logits = batch_scores / temperature
    gaps = (logits - teacher_batch_scores / teacher_temperature).detach()
    decay = where(gaps > 0, 0.0, (-(gaps / width).square() / 2).exp())
    hard = batch_candidates & batch_mask & ~batch_labels
    logits = logits - where(hard, logits.detach() * decay, 0.0)
    rows, columns = labelled_pairs(batch_labels, batch_mask)
    negative = (batch_mask & ~batch_labels)[rows]
    return average(choice_nll(logits[rows, columns], logits[rows], negative))


@loss
def delta_kl(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    base_scores: Float[Tensor, "B N"],
    start_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """KL divergence from the student's start plus what the teacher learned over its own base.

        target  = softmax( start / T_s + (teacher - base) / T_t ),  loss = KL(target || student)

    `base_scores` are those of the model that the teacher was before it was trained, `start_scores`
    those of the student before its training: the student learns the difference, not what the
    teacher's base would have said anyway. Both have labels, as stored scores or live teachers:
    `delta-kl(base_scores=base.scores,start_scores=start.scores)`. Where the teacher learned
    nothing, the target is the student's start. In nats, averaged over the queries that have two
    real candidates; 0 where the student's logits differ from the start's by the teacher's delta.

    Source: ours, for rankings; adding the difference of two models to a third as in Liu et al.
    2024, "Tuning Language Models by Proxy", arXiv:2401.08565, and Mitchell et al. 2023,
    arXiv:2310.12962 (from memory), who do it when a text is generated, not in training.

    """
    delta = (teacher_scores - base_scores) / teacher_temperature
    target = masked_log_softmax(start_scores / student_temperature + delta, mask)
    student = masked_log_softmax(student_scores / student_temperature, mask)
    return mean_kl(target, student, mask)
