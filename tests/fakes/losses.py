"""A loss of somebody's own, outside the package, whose settings have names of its own."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average


@loss(zero_at={"student_scores": "teacher_scores"})
def huber_margin(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    sharpness: StudentTemperature = 1.0,
    tau: TeacherTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Huber loss of the student's and the teacher's margins over the positive.

    Source: made up for the tests.
    """
    real = mask[:, :1] & mask[:, 1:]
    student = (student_scores[:, :1] - student_scores[:, 1:]) / sharpness
    teacher = (teacher_scores[:, :1] - teacher_scores[:, 1:]) / tau
    return average(smooth_l1_loss(student[real], teacher[real], reduction="none"))


def undeclared(
    student_scores: Tensor, teacher_scores: Tensor, mask: Tensor, *, tau: float = 1.0
) -> Tensor:
    """Squared error, with an undeclared role of `tau`."""
    return average((student_scores - teacher_scores / tau)[mask].square())
