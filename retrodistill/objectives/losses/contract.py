"""What a loss declares about itself, read by the checks before training and by the contract test.

The role of a setting stands in its annotation, whatever the setting is called:

    @loss(zero_at={"student_scores": "teacher_scores"})
    def my_kl(student_scores, teacher_scores, mask, *, tau: TeacherTemperature = 1.0): ...

So a new loss is checked without being listed anywhere. This module imports nothing heavy, and the
registry reads annotations from the source: an objective is checked before torch is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any


class Role(Enum):
    """What a setting is for; the value is the annotation that declares it."""

    STUDENT_TEMPERATURE = "StudentTemperature"
    TEACHER_TEMPERATURE = "TeacherTemperature"
    TEACHER_UNITS = "TeacherUnits"
    SCALE_FREE = "ScaleFree"


StudentTemperature = Annotated[float, Role.STUDENT_TEMPERATURE]
"""Divides the student's scores. Above 0; small (0.05) for a student of cosines."""

TeacherTemperature = Annotated[float, Role.TEACHER_TEMPERATURE]
"""Divides the teacher's scores. Above 0; decides how many candidates a teacher's list is about."""

TeacherUnits = Annotated[float, Role.TEACHER_UNITS]
"""Compared with the teacher's scores or margins, so given in their unit."""

ScaleFree = Annotated[bool, Role.SCALE_FREE]
"""Normalises the margins of both sides, so that neither scale nor temperatures matter."""

TEMPERATURES = (Role.STUDENT_TEMPERATURE, Role.TEACHER_TEMPERATURE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What `@loss(...)` declares of a loss as a whole."""

    zero_at: Mapping[str, str] = field(default_factory=dict)
    """Signal of the student -> signal of the teacher: the loss is 0 where they are equal. Empty
    for a loss with a floor of its own: of labels, of a permutation, or a cross-entropy."""

    least_candidates: int = 1
    """What --candidates-per-query must be at least: shorter lists teach the loss nothing."""

    exact_gradient: bool = True
    """Whether the gradient is that of the whole value, with no part of it detached."""


UNDECLARED = Contract()
"""The contract of a function without the decorator."""


def role_of(annotation: Any) -> Role | None:
    """Return the role that a setting's annotation declares, as an object or as source text."""
    if isinstance(annotation, str):
        name = annotation.rpartition(".")[2]
        return next((role for role in Role if role.value == name), None)
    metadata = getattr(annotation, "__metadata__", ())
    return next((each for each in metadata if isinstance(each, Role)), None)
