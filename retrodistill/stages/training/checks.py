"""Whether scores fit an objective: the teacher's can teach it, the student's can follow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.data.rankings import calibrated_temperature, perplexity
from retrodistill.data.rankings.segments import Floats, Segments, numbered, scores_of
from retrodistill.data.store.runs import Run
from retrodistill.objectives.losses.contract import UNDECLARED, Role

if TYPE_CHECKING:
    from retrodistill.base.config import TrainSettings
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.material import Material

BOUNDED = ("probability", "cosine", "percentiles", "min-max")

ONE_HOT = 1.2
"""Median perplexity below which a list tells little more than which document is best."""

SOFT = 2.0
"""Median perplexity below which lists are nearly one-hot."""

BLUNT = 0.25
"""Temperature above which a softmax of cosines can hardly tell documents apart: the best possible
document has e^8 times the weight of the worst possible at 0.25, and e^2 times at 1."""

FLAT = 0.9
"""Share of a list's length above which its perplexity is that of nearly equal scores."""


@dataclass(frozen=True, eq=False, slots=True)
class _Teacher:
    """Each query's best candidates."""

    run: "Run"
    lists: Segments
    scores: Floats


def check_teacher(
    terms: "Sequence[LossTerm]", scores: "Run", *, depth: int, signal: str = "teacher_scores"
) -> dict[str, float]:
    """Return the median perplexity of the teacher's `depth` best candidates for each loss, by name.

    Logs it, with a better temperature where lists are nearly one-hot or nearly flat. A list of n
    random candidates out of these is harder still. Logs as well lists of equal scores, margins of
    bounded teachers, and ranks that a loss would take for scores. A loss that does not ask for the
    teacher's scores is skipped; one of margins has no perplexity.

    Raises:
        DataError: a loss asks for the teacher's scores, and all lists are constant.

    """
    terms = [term for term in terms if signal in term.signals]
    if not terms:
        return {}
    run = scores.top(depth)
    teacher = _Teacher(run, Segments.of(numbered([run], "query_id")[1][0]), scores_of(run))
    _check_constant(terms, teacher)
    ranks = run.scale == "rank" or _are_ranks(teacher)
    perplexities = {}
    for term in terms:
        if signal in term.teachers:
            _perplexity(term.name, f"{signal}/T with T", term.teachers[signal], teacher, depth)
            continue
        settings = term.all_settings
        temperature = next(iter(term.settings_with(Role.TEACHER_TEMPERATURE)), None)
        if temperature is None:
            if term.contract is UNDECLARED:
                log.warning(
                    f"{term.name}: no setting is annotated as TeacherTemperature, so the teacher's "
                    "lists are not checked for it. Annotate one, or decorate the loss with @loss "
                    "if it has none."
                )
            continue
        if ranks:
            log.warning(
                f"{term.name}: the teacher gives ranks, whose differences do not say how much "
                "better a document is. Better: ranknet, lambdarank or listmle, which use the order."
            )
        for switch in term.settings_with(Role.SCALE_FREE):  # a loss of margins, not of a softmax
            if not settings[switch] and settings[temperature] == 1:
                _log_if_bounded(term.name, temperature, switch, teacher)
        if not term.settings_with(Role.SCALE_FREE):
            median = _perplexity(term.name, temperature, settings[temperature], teacher, depth)
            perplexities[term.name] = round(median, 3)
    return perplexities


def check_live_scores(terms: "Sequence[LossTerm]", scores: "Floats") -> None:
    """Log what a live teacher's scores (queries, documents) of a batch can teach these terms.

    As `check_teacher` does it: over how many documents a softmax is spread, with a better
    temperature where that is nearly one or nearly all; margins of a bounded teacher.
    """
    queries, docs = scores.shape
    if not queries or docs < 2:
        return
    rows = np.repeat(np.arange(queries), docs).astype(str).tolist()
    columns = np.tile(np.arange(docs), queries).astype(str).tolist()
    run = Run.from_columns(rows, columns, scores.ravel())
    teacher = _Teacher(run, Segments.of(numbered([run], "query_id")[1][0]), scores_of(run))
    for term in terms:
        temperature = next(iter(term.settings_with(Role.TEACHER_TEMPERATURE)), None)
        if temperature is None:
            continue
        switches = term.settings_with(Role.SCALE_FREE)
        for switch in switches:
            if not term.all_settings[switch] and term.all_settings[temperature] == 1:
                _log_if_bounded(term.name, temperature, switch, teacher)
        if not switches:
            _perplexity(term.name, temperature, term.all_settings[temperature], teacher, docs)


def with_perplexity(
    terms: "tuple[LossTerm, ...]",
    scores: "Run | None",
    material: "Material",
    settings: "TrainSettings",
) -> "tuple[LossTerm, ...]":
    """Return the objective with the teacher temperature of --teacher-perplexity, if it is given.

    A list is what a query is trained on: its positives and the best candidates of its pool.

    Raises:
        ConfigError: no loss has a teacher temperature, or the objective sets one itself.
        DataError: no temperature gives the lists this perplexity.

    """
    target = settings.teacher_perplexity
    if target is None:
        return terms
    assert scores is not None  # `check_settings` has asked for them
    # Other teachers, live ones and those of vectors, have scales of their own.
    named = [
        term.settings_with(Role.TEACHER_TEMPERATURE) if "teacher_scores" in term.signals else ()
        for term in terms
    ]
    if not any(named):
        raise ConfigError(
            f"--teacher-perplexity sets a teacher temperature, but objective "
            f"{settings.objective!r} has none. Omit it, or choose a listwise loss."
        )
    for term, temperatures in zip(terms, named, strict=True):
        if given := term.settings.keys() & {*temperatures}:
            raise ConfigError(
                f"{term.name} has a {', '.join(sorted(given))} in --objective, and "
                "--teacher-perplexity sets it too: give one of the two."
            )
    queries = material.collection.queries.ids(material.queries)
    lists = scores.select(queries).top(settings.pool + 1)
    temperature = calibrated_temperature(lists, target).temperature
    log.info(
        f"the teacher temperature is {temperature:.4g}: half of the lists are spread over "
        f"{target:g} documents and more."
    )
    return tuple(
        replace(term, settings={**term.settings, **dict.fromkeys(temperatures, temperature)})
        for term, temperatures in zip(terms, named, strict=True)
    )


def check_student(terms: "Sequence[LossTerm]", model: Any, settings: "TrainSettings") -> None:
    """Log which terms have a temperature that does not fit the student's scores.

    Raises:
        ConfigError: a term needs more candidates than --candidates-per-query.

    """
    for term in terms:
        least = term.contract.least_candidates
        if settings.candidates_per_query < least:
            raise ConfigError(
                f"{term.name} needs {least} candidates: shorter lists teach it nothing, whatever "
                f"their scores. Raise --candidates-per-query {settings.candidates_per_query}."
            )
    if not STUDENT_KINDS[settings.student_kind].gives_cosines(model):
        return
    for term in terms:
        chosen = term.all_settings
        if any(chosen[switch] for switch in term.settings_with(Role.SCALE_FREE)):
            continue
        for name in term.settings_with(Role.STUDENT_TEMPERATURE):
            if chosen[name] > BLUNT:
                log.warning(
                    f"{term.name}: the student's scores are cosines, from -1 to 1, and {name} "
                    f"{chosen[name]:g} is for unbounded scores: it can hardly tell candidates "
                    f"apart. Set {term.name}({name}=0.05), or train a student that does not "
                    "normalise its vectors."
                )


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
        log.warning(
            f"{constant:,} of {len(lists):,} lists are constant: the teacher prefers no document."
        )


def _are_ranks(teacher: _Teacher) -> bool:
    """Tell whether the scores of each list fall by 1 from candidate to candidate."""
    within = np.ones(len(teacher.scores), np.bool_)
    within[teacher.lists.starts] = False
    steps = np.diff(teacher.scores, prepend=0.0)[within]
    return len(teacher.lists) < len(steps) and bool((steps == -1).all())


def _log_if_bounded(name: str, temperature: str, switch: str, teacher: _Teacher) -> None:
    low, high = float(teacher.scores.min()), float(teacher.scores.max())
    if teacher.run.scale in BOUNDED or (low >= -1 and high <= 1):
        log.warning(
            f"{name}: the teacher's scores are bounded (from {low:.3g} to {high:.3g}), so its "
            f"margins do not fit inner products. Set {name}({switch}=true), or a "
            f"{temperature} well below 1, such as {name}({temperature}=0.1)."
        )


def _perplexity(
    name: str, setting: str, temperature: float, teacher: _Teacher, depth: int
) -> float:
    median = float(np.median(perplexity(teacher.run, temperature)))
    length = float(np.median(teacher.lists.lengths))
    description, target = "", SOFT
    if median < SOFT:
        description = "one-hot" if median < ONE_HOT else "nearly one-hot"
    elif length > SOFT and median > FLAT * length:
        description, target = "nearly flat", max(SOFT, length / 3)
    log.info(
        f"{name}: at {setting} {temperature:g} the teacher spreads half of the lists over "
        f"{median:.2f} of the {depth} best documents and more"
        f"{_advice(description, target, teacher)}."
    )
    return median


def _advice(description: str, target: float, teacher: _Teacher) -> str:
    if not description:
        return ""
    try:
        better = calibrated_temperature(teacher.run, target).temperature
    except DataError:
        return f", so its lists are {description}"
    return f", so its lists are {description}; {better:.3g} would make it {target:.3g}"
