"""How soft the teacher's lists are at an objective's temperatures: told before training starts."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrodistill.arithmetic import calibrated_temperature, perplexity
from retrodistill.errors import DataError
from retrodistill.progress import say

if TYPE_CHECKING:
    from retrodistill.objective import LossTerm
    from retrodistill.store.runs import Run

SETTING = "teacher_temperature"
SOFT = 2.0
"""Median perplexity below which lists are nearly one-hot."""


def teacher_perplexity(
    terms: "Sequence[LossTerm]", scores: "Run", *, first: int
) -> dict[str, float]:
    """Return the median perplexity of the teacher's `first` best candidates for each loss, by name.

    It is told, with the temperature that would make it SOFT where it is lower: below, the
    student learns little more than which document is best, which labels say as well. A list of n
    random candidates out of these is harder still.
    """
    found = {}
    for term in terms:
        parameters = inspect.signature(term.function).parameters
        if "teacher_scores" not in parameters or SETTING not in parameters:
            continue
        temperature = float(term.settings.get(SETTING, parameters[SETTING].default))
        median = float(np.median(perplexity(scores, temperature, first=first)))
        found[term.name] = round(median, 3)
        advice = "" if median >= SOFT else _advice(scores, first)
        say(
            f"{term.name}: at {SETTING} {temperature:g} the teacher spreads half of the lists over "
            f"{median:.2f} of the {first} best documents and more{advice}."
        )
    return found


def _advice(scores: "Run", first: int) -> str:
    try:
        wanted = calibrated_temperature(scores, SOFT, first=first).temperature
    except DataError:
        return ""
    return f", so its lists are nearly one-hot; {wanted:.3g} would make it {SOFT:g}"
