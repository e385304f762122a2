"""Several teachers of one loss, each with a temperature: `teacher_scores/2&bi.scores/0.05`."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.labels import STUDENT

if TYPE_CHECKING:
    from torch import Tensor

SEVERAL = "teachers"
"""The signal (E, B, N) that a term makes of the scores of the teachers that it names."""

EXAMPLE = f"{SEVERAL}=teacher_scores/2&LABEL.scores/0.05"

_TEACHER = re.compile(r"\s*(teacher_scores|[A-Za-z][\w-]*\.scores)\s*(?:/\s*([0-9.eE+-]+)\s*)?")


def parse_teachers(text: str, loss: str) -> dict[str, float]:
    """Return signal -> temperature of the teachers that a term names.

    Raises:
        ConfigError: the text has another form, a temperature is not above 0, or a teacher is named
            twice.

    """
    teachers: dict[str, float] = {}
    for piece in text.split("&"):
        match = _TEACHER.fullmatch(piece)
        if match is None or match[1] in {*teachers, f"{STUDENT}.scores"}:
            raise ConfigError(
                f"{loss}: {SEVERAL}={text} is not understood. Name each teacher once, with the "
                f"temperature that divides its scores: {loss}({EXAMPLE})."
            )
        teachers[match[1]] = _temperature(match[2], piece, loss)
    return teachers


def _temperature(text: str | None, piece: str, loss: str) -> float:
    try:
        value = 1.0 if text is None else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{loss}: the temperature of {piece.strip()} must be a number above 0.")
    return value


def stacked(teachers: Mapping[str, float], signals: "Mapping[str, Tensor]") -> "Tensor":
    """Return the scores of the teachers (E, B, N), each divided by its temperature.

    No gradient enters them, not even those of a model that is trained beside the student.
    """
    import torch

    scores = (signals[name].detach() for name in teachers)
    wide = [each.to(torch.promote_types(each.dtype, torch.float32)) for each in scores]
    return torch.stack([each / value for each, value in zip(wide, teachers.values(), strict=True)])
