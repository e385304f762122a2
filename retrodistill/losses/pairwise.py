"""Losses over pairs of candidates of one query."""

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.errors import DataError


def margin_mse(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Squared error between the student's and the teacher's margins.

    The margin of candidate j is score[0] - score[j]; candidate 0 is the positive. Margins are
    divided by the temperature of their side: a student of cosines needs one near 0.05 to reach
    the margins of a teacher of logits. The mean runs over all real pairs of the batch, so a
    query with more candidates weighs more.

    Adding a constant to a query's teacher scores changes nothing; multiplying them does, so
    the student takes over the teacher's scale.

    Raises:
        DataError: no query has a real positive and a real second candidate.

    Source: Hofstaetter et al. 2020, arXiv:2010.02666.

    """
    real = mask[:, :1] & mask[:, 1:]
    if not real.any():
        raise DataError(
            "margin_mse needs two real candidates for at least one query, "
            f"but the mask of shape {tuple(mask.shape)} leaves no pair. "
            "Mine more candidates, or raise --candidates-per-query."
        )
    student = (student_scores[:, :1] - student_scores[:, 1:]) / student_temperature
    teacher = (teacher_scores[:, :1] - teacher_scores[:, 1:]) / teacher_temperature
    return (student - teacher)[real].square().mean()
