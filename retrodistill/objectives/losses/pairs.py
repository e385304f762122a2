"""Losses of a pair head, which scores a query's and a document's vector together."""

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.objectives.losses.contract import TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average


@loss(zero_at={"pair_scores": "teacher_scores"})
def dse(
    pair_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    teacher_temperature: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Squared error between the pair head's score and the teacher's (Distilled Sentence Embedding).

        mean over real candidates of (pair score - teacher score / T)^2

    In squared units of the teacher's scores, divided by its temperature squared. Each candidate
    has the same weight, whatever its list. Unlike losses of margins and lists, this teaches the
    absolute value of a score, which a head with a bias can reach and a cosine cannot.

    Source: Distilled Sentence Embedding, Barkan et al. 2019, arXiv:1908.05161 (from memory).

    """
    return average((pair_scores - teacher_scores / teacher_temperature)[mask].square())
