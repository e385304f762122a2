"""What a teacher's scores can teach an objective, and a student learn: logged before training."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.data.rankings import calibrated_temperature, perplexity
from retrodistill.data.rankings.segments import Floats, Segments, numbered, scores_of

if TYPE_CHECKING:
    from retrodistill.base.config import TrainSettings
    from retrodistill.data.store.runs import Run
    from retrodistill.objectives.objective import LossTerm

SETTING = "teacher_temperature"
BOUNDED = ("probability", "cosine", "percentiles", "min-max")

ONE_HOT = 1.2
"""Median perplexity below which a list says little more than which document is best."""

SOFT = 2.0
"""Median perplexity below which lists are nearly one-hot."""

BLUNT = 0.25
"""Temperature above which a softmax of cosines can hardly tell documents apart: the best possible
one has e^8 times the weight of the worst possible at 0.25, and e^2 times at 1."""

FLAT = 0.9
"""Share of a list's length above which its perplexity is that of nearly equal scores."""


@dataclass(frozen=True, eq=False, slots=True)
class _Teacher:
    """Each query's best candidates."""

    run: "Run"
    lists: Segments
    scores: Floats


def check_teacher(terms: "Sequence[LossTerm]", scores: "Run", *, depth: int) -> dict[str, float]:
    """Return the median perplexity of the teacher's `depth` best candidates for each loss, by name.

    It is told, with the temperature that would make it better where lists are nearly one-hot or
    nearly flat. A list of n random candidates out of these is harder still. Told as well are lists
    of equal scores, margins of bounded teachers, and ranks that a loss would take for scores.
    A loss that does not ask for the teacher's scores is not looked at; one of margins has no
    perplexity.

    Raises:
        DataError: a loss asks for the teacher's scores, and all lists are constant.

    """
    terms = [term for term in terms if "teacher_scores" in term.signals]
    if not terms:
        return {}
    run = scores.top(depth)
    teacher = _Teacher(run, Segments.of(numbered([run], "query_id")[1][0]), scores_of(run))
    _check_constant(terms, teacher)
    ranks = run.scale == "rank" or _are_ranks(teacher)
    found = {}
    for term in terms:
        settings = _settings(term)
        if SETTING not in settings:
            continue
        if ranks:
            log.info(
                f"{term.name}: the teacher gives ranks, whose differences say nothing of how much "
                "better a document is. Better: ranknet, lambdarank or listmle, which go by order."
            )
        if "scaled" in settings:
            if not settings["scaled"] and settings[SETTING] == 1:
                _tell_bounded(term.name, teacher)
            continue
        found[term.name] = round(_perplexity(term.name, settings[SETTING], teacher, depth), 3)
    return found


def check_student(terms: "Sequence[LossTerm]", model: Any, settings: "TrainSettings") -> None:
    """Log which terms a student's scores cannot follow, as their temperature is for other scores.

    Raises:
        ConfigError: a term needs more candidates than --candidates-per-query.

    """
    for term in terms:
        if term.name == "standardised-kl" and settings.candidates_per_query < 3:
            raise ConfigError(
                "standardised-kl needs three candidates: two standardised scores are always 1 and "
                f"-1. Raise --candidates-per-query {settings.candidates_per_query}."
            )
    if not STUDENT_KINDS[settings.student_kind].gives_cosines(model):
        return
    for term in terms:
        chosen = _settings(term)
        if chosen.get("scaled"):
            continue
        for name in ("student_temperature", "temperature"):
            if chosen.get(name, 0.0) > BLUNT:
                log.info(
                    f"{term.name}: the student's scores are cosines, from -1 to 1, and {name} "
                    f"{chosen[name]:g} is for unbounded scores: it can hardly tell candidates "
                    f"apart. Set {term.name}({name}=0.05), or train a student that does not "
                    "normalise its vectors."
                )


def _settings(term: "LossTerm") -> dict[str, Any]:
    """Return all of a loss's settings, with their defaults."""
    parameters = inspect.signature(term.function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} | dict(term.settings)


def _check_constant(terms: "Sequence[LossTerm]", teacher: _Teacher) -> None:
    lists, scores = teacher.lists, teacher.scores
    long = lists.lengths > 1
    constant = int((long & (lists.highest(scores) == -lists.highest(-scores))).sum())
    if constant == long.sum():
        names = ", ".join(term.name for term in terms)
        raise DataError(
            f"in none of {len(lists):,} lists does the teacher score two candidates differently, "
            f"so {names} cannot learn from it. Check it with `retrodistill.audit`, and that its "
            "scores were not rounded."
        )
    if constant:
        log.info(
            f"{constant:,} of {len(lists):,} lists are constant: the teacher prefers no document."
        )


def _are_ranks(teacher: _Teacher) -> bool:
    """Tell whether each list goes down by 1 from candidate to candidate."""
    within = np.ones(len(teacher.scores), np.bool_)
    within[teacher.lists.starts] = False
    steps = np.diff(teacher.scores, prepend=0.0)[within]
    return len(teacher.lists) < len(steps) and bool((steps == -1).all())


def _tell_bounded(name: str, teacher: _Teacher) -> None:
    low, high = float(teacher.scores.min()), float(teacher.scores.max())
    if teacher.run.scale in BOUNDED or (low >= -1 and high <= 1):
        log.info(
            f"{name}: the teacher's scores are bounded (from {low:.3g} to {high:.3g}), so its "
            f"margins are no match for inner products. Set {name}(scaled=true), or a {SETTING} "
            f"well below 1, such as {name}({SETTING}=0.1)."
        )


def _perplexity(name: str, temperature: float, teacher: _Teacher, depth: int) -> float:
    median = float(np.median(perplexity(teacher.run, temperature)))
    length = float(np.median(teacher.lists.lengths))
    what, target = "", SOFT
    if median < SOFT:
        what = "one-hot" if median < ONE_HOT else "nearly one-hot"
    elif length > SOFT and median > FLAT * length:
        what, target = "nearly flat", max(SOFT, length / 3)
    log.info(
        f"{name}: at {SETTING} {temperature:g} the teacher spreads half of the lists over "
        f"{median:.2f} of the {depth} best documents and more{_advice(what, target, teacher)}."
    )
    return median


def _advice(what: str, target: float, teacher: _Teacher) -> str:
    if not what:
        return ""
    try:
        wanted = calibrated_temperature(teacher.run, target).temperature
    except DataError:
        return f", so its lists are {what}"
    return f", so its lists are {what}; {wanted:.3g} would make it {target:.3g}"
