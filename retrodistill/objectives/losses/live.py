"""Losses over all documents of a batch, each of which a live teacher scores for every query."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.objectives.losses.contract import (
    ScaleFree,
    StudentTemperature,
    TeacherTemperature,
)
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average, of_unit_size


@loss(zero_at={"batch_scores": "teacher_batch_scores"})
def batch_margin_mse(
    batch_scores: Float[Tensor, "B M"],
    teacher_batch_scores: Float[Tensor, "B M"],
    batch_labels: Bool[Tensor, "B M"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
    scaled: ScaleFree = False,
) -> Float[Tensor, ""]:
    """Margin-MSE between a query's positive and every other document of the batch.

    The margin of document j is score[positive] - score[j], for each labelled candidate of the
    query as the positive and every other document of the batch, positives and negatives of other
    queries alike: the teacher has scored them, so none is taken for a negative. Margins are
    divided by the temperature of their side: a student of cosines needs one near 0.05. `scaled` is
    for bounded teachers, as in `margin_mse`. In squared units of the teacher's scores, a mean over
    all these pairs of the batch.

    Source: the in-batch half of TAS-Balanced, Hofstaetter et al. 2021, arXiv:2104.06967, which
    weighs it by 0.75 beside `margin_mse` of stored scores.

    """
    rows, columns = batch_labels.nonzero(as_tuple=True)
    others = torch.arange(batch_scores.shape[1], device=columns.device) != columns[:, None]
    # P x M: margins of each labelled pair over each document
    student = batch_scores[rows, columns][:, None] - batch_scores[rows]
    teacher = teacher_batch_scores[rows, columns][:, None] - teacher_batch_scores[rows]
    student, teacher = student[others] / student_temperature, teacher[others] / teacher_temperature
    if scaled:
        student, teacher = of_unit_size(student), of_unit_size(teacher)
    return average((student - teacher).square())


@loss
def batch_kl(
    batch_scores: Float[Tensor, "B M"],
    teacher_batch_scores: Float[Tensor, "B M"],
    *,
    student_temperature: StudentTemperature = 0.05,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """KL divergence over all documents of the batch, from a live teacher's scores.

    KL(teacher || student), each a softmax over every distinct document of the batch, whichever
    query it was drawn for: a relevant document of another query is not a plain negative. In nats,
    averaged over queries, without a factor of the temperature squared.

    Source: Lin, Yang and Lin 2021, "In-Batch Negatives for Knowledge Distillation with
    Tightly-Coupled Teachers for Dense Retrieval" (TCT-ColBERT), whose teacher is a ColBERT.

    """
    student = (batch_scores / student_temperature).log_softmax(-1)
    teacher = (teacher_batch_scores / teacher_temperature).log_softmax(-1)
    return average((teacher.exp() * (teacher - student)).sum(-1))
