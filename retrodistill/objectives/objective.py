"""Parse and compute an objective, a weighted sum of losses.

listwise-kl(student_temperature=0.05) + 0.1*contrastive
"""

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from retrodistill.base.calls import Call, parse_call
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.registry import LOSSES
from retrodistill.objectives.losses.contract import (
    TEMPERATURES,
    UNDECLARED,
    Contract,
    Role,
    role_of,
)
from retrodistill.objectives.teachers import SEVERAL, parse_teachers, stacked

if TYPE_CHECKING:
    from inspect import Parameter

    from torch import Tensor

    from retrodistill.base.config import TrainSettings

SIGNALS = {
    "student_scores": "B N",
    "teacher_scores": "B N",
    "mask": "B N",
    "labels": "B N",
    "trusted_negatives": "B N",
    "base_scores": "B N",
    "start_scores": "B N",
    "log_weights": "B N",
    "teachers": "K B N",
    "pair_scores": "B N",
    "preferences": "B N N",
    "preference_mask": "B N N",
    "batch_scores": "B M",
    "teacher_batch_scores": "B M",
    "batch_candidates": "B M",
    "batch_labels": "B M",
    "batch_mask": "B M",
    "query_vectors": "B D",
    "doc_vectors": "M D",
    "matched_query_vectors": "B T",
    "matched_doc_vectors": "M T",
    "teacher_query_vectors": "B T",
    "teacher_doc_vectors": "M T",
    "queue_vectors": "Q T",
}
"""Every signal that a batch can carry, and its shape.

Lists, one a query. `student_scores`, `teacher_scores`: scores of the query's candidates, the
positive first. `mask`: which candidates are real, not padding. `labels`: which are relevant.
`trusted_negatives`: which unlabelled candidates may serve as negatives; the others may be
relevant without a label. `log_weights`: logarithm of the weight of a sampled candidate, which
stands for several. `pair_scores`: the scores of a head that sees both vectors. `preferences`: a
teacher's log p(i is better than j), in nats, where `preference_mask` says that it compared them.

The batch. `batch_scores`, `teacher_batch_scores`: the student's and a live teacher's scores of
every distinct document of the batch.
`batch_candidates`: which of those are candidates of the query itself. `batch_labels`,
`batch_mask`: which are relevant, and which may be compared at all.

Vectors. `query_vectors`, `doc_vectors`: the student's, of the batch's queries and distinct
documents. `teacher_...`: the teacher's vectors of the same texts; `matched_...`: the student's
in the teacher's space, through a learned projection where dimensions differ. `queue_vectors`: the
teacher's vectors of other documents.

A teacher with a label gives `LABEL.scores` and `LABEL.batch_scores`, of the shapes of
`teacher_scores` and `teacher_batch_scores`, to the terms that ask for them:
`listwise-kl(teacher_scores=LABEL.scores)`. `teachers` are the scores of K teachers that a term
names, each divided by its temperature: `teachers=teacher_scores/2&LABEL.scores/0.05`.
`base_scores`, `start_scores`: those of the model that the teacher was, and that the student was,
before training.
"""

LABELLED = ("teacher_scores", "teacher_batch_scores", "base_scores", "start_scores")
"""Signals that a labelled teacher can give; the last two have no other source."""

_ALIAS = re.compile(r"[A-Za-z][\w-]*\.\w+")
_TERM = re.compile(r"\s*(?:(?P<weight>[0-9.eE+-]+?)\s*\*)?(?P<call>.*)", re.DOTALL)


def shape_of(signal: str) -> str | None:
    """Return the letters of a signal's shape, also of `LABEL.scores`; None if it is unknown."""
    label, _, name = signal.rpartition(".")
    if not label:
        return SIGNALS.get(name)
    return SIGNALS[f"teacher_{name}"] if f"teacher_{name}" in LABELLED else None


class Signals(dict[str, "Tensor"]):
    """The named tensors of one batch, with their shapes checked once.

    Raises:
        DataError: an unknown signal, or shapes that do not fit each other: a teacher of shape
            (B, 1) would otherwise be broadcast over the list silently.

    """

    def __init__(self, **tensors: "Tensor") -> None:
        super().__init__(tensors)
        sizes: dict[str, tuple[int, str]] = {}
        for name, tensor in tensors.items():
            shape = shape_of(name)
            if shape is None:
                raise DataError(f"unknown signal {name!r}. Known: {', '.join(SIGNALS)}.")
            letters = shape.split()
            if tensor.ndim != len(letters):
                raise DataError(
                    f"signal {name} must have shape ({', '.join(letters)}), "
                    f"but its shape is {tuple(tensor.shape)}."
                )
            for letter, size in zip(letters, tensor.shape, strict=True):
                expected, source = sizes.setdefault(letter, (size, name))
                if size != expected:
                    raise DataError(
                        f"signal {name} has {letter} = {size}, "
                        f"but {source} has {letter} = {expected}."
                    )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossTerm:
    """One loss of an objective: its name, its weight, its own settings."""

    name: str
    weight: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    aliases: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> signal of a labelled source that takes its place, `LABEL.scores`."""

    teachers: Mapping[str, float] = field(default_factory=dict)
    """Signal -> temperature of the teachers that the term names, if the loss takes several."""

    @property
    def function(self) -> "Callable[..., Tensor]":
        """The loss as a function of signals and settings."""
        return LOSSES[self.name]  # type: ignore[no-any-return]

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals that the loss asks for."""
        several = self.teachers or (SEVERAL,)
        names = ((name,) if name != SEVERAL else several for name in self.inputs.values())
        return tuple(dict.fromkeys(chain.from_iterable(names)))

    @property
    def inputs(self) -> dict[str, str]:
        """Parameter of the loss -> name of the signal that it is given."""
        return {name: self.aliases.get(name, name) for name in _signals_of(self.name)}

    @property
    def contract(self) -> Contract:
        """What the loss declares with `@loss(...)`."""
        contract: Contract = getattr(self.function, "contract", UNDECLARED)
        return contract

    @property
    def all_settings(self) -> dict[str, Any]:
        """The loss's settings, given ones and defaults."""
        return {p.name: p.default for p in _settings_of(self.name)} | dict(self.settings)

    def settings_with(self, role: Role) -> tuple[str, ...]:
        """Return the names of the settings that the loss declares to have a role."""
        return tuple(p.name for p in _settings_of(self.name) if role_of(p.annotation) is role)


def parse_objective(text: str) -> tuple[LossTerm, ...]:
    """Return the terms of a weighted sum such as `listwise-kl + 0.1*contrastive(temperature=0.02)`.

    Raises:
        ConfigError: a loss or a setting is unknown, a weight is not a number above 0, or the text
            is not such a sum.

    """
    terms = []
    for piece in re.split(r"\+(?![^(]*\))(?<!\d[eE]\+)", text):
        match = _TERM.fullmatch(piece)
        assert match is not None
        call = parse_call(
            match["call"], "loss", example="listwise-kl(teacher_temperature=0.5) + 0.1*contrastive"
        )
        weight = _weight(match["weight"] or "1", text)
        aliases = _aliases(call)
        options = {key: call.settings[key] for key in call.settings if key not in aliases}
        several = options.pop(SEVERAL, "") if SEVERAL in _signals_of(call.name) else ""
        settings = _checked(Call(call.kind, call.name, options))
        terms.append(
            LossTerm(
                name=call.name,
                weight=weight,
                settings=settings,
                aliases=aliases,
                teachers=parse_teachers(several, call.name) if several else {},
            )
        )
    return tuple(terms)


INPUTS = {
    "teacher_scores": "--scores",
    "log_weights": "--scores",
    "preferences": "--preferences",
    "teacher_doc_vectors": "--vectors",
    "teacher_batch_scores": "--teacher",
    "labels": "labels",
    "batch_labels": "labels",
}
"""Signal -> what provides it: a flag of `train`, or labels in the split."""


def inputs_of(terms: Sequence[LossTerm]) -> tuple[str, ...]:
    """Return the inputs that an objective needs, each once: flags of `train`, and labels."""
    signals = [signal for term in terms for signal in term.signals]
    inputs = [
        f"--teacher {signal.partition('.')[0]}=TEACHER" if "." in signal else INPUTS.get(signal)
        for signal in signals
    ]
    return tuple(dict.fromkeys(name for name in inputs if name))


def needs_of(settings: "TrainSettings") -> tuple[str, ...]:
    """Return the inputs that training with these settings needs: flags of `train`, and labels."""
    needs = inputs_of(parse_objective(settings.objective))
    if settings.flags_of_scores and "--scores" not in needs:
        needs = (*needs, "--scores")
    if settings.positives == "teacher":
        needs = tuple(need for need in needs if need != "labels")
    return needs


def bind(terms: Sequence[LossTerm]) -> "Callable[[Signals], dict[str, Tensor]]":
    """Return a function from signals to the weighted value of each term, by name.

    A loss asks for a signal by naming a parameter after it, as a pytest test asks for a fixture.

    Raises:
        ConfigError: on a call, if a loss asks for a signal that the batch lacks.

    """
    bound = [(term, term.function, term.inputs) for term in terms]

    def objective(signals: Signals) -> "dict[str, Tensor]":
        values: dict[str, Tensor] = {}
        for term, loss, required in bound:
            missing = [name for name in term.signals if name not in signals]
            if missing:
                raise ConfigError(
                    f"loss {term.name!r} needs {', '.join(missing)}, but this batch carries only "
                    f"{', '.join(signals)}. Give --scores, --vectors or --teacher, "
                    "or drop the loss."
                )
            arguments = {
                parameter: stacked(term.teachers, signals)
                if name == SEVERAL and term.teachers
                else signals[name]
                for parameter, name in required.items()
            }
            value = term.weight * loss(**arguments, **term.settings)
            values[term.name] = values[term.name] + value if term.name in values else value
        return values

    return objective


def _weight(text: str, objective: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ConfigError(
            f"objective {objective!r}: invalid weight {text!r}. A term's weight must be a number "
            "above 0. To omit a term, drop it."
        )
    return weight


def _signals_of(loss: str) -> list[str]:
    """Return the parameters of a loss that are signals."""
    parameters = LOSSES.signature(loss).parameters.values()
    return [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]


def _aliases(call: Call) -> dict[str, str]:
    """Return the signals of labelled teachers that take the place of a teacher's, by parameter.

    Raises:
        ConfigError: an alias does not name such a signal, or one of another shape.

    """
    signals = [name for name in _signals_of(call.name) if name in call.settings]
    aliases = {name: call.settings[name] for name in signals if name in LABELLED}
    for name, alias in aliases.items():
        if not _ALIAS.fullmatch(alias) or shape_of(alias) != SIGNALS[name]:
            raise ConfigError(
                f"{call.name}: {name}={alias} is not understood. Write "
                f"{name}=LABEL.{'batch_scores' if 'batch' in name else 'scores'}, with --teacher "
                "LABEL=TEACHER."
            )
    return aliases


def _settings_of(loss: str) -> "list[Parameter]":
    """Return the keyword-only parameters of a loss."""
    parameters = LOSSES.signature(loss).parameters.values()
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def _checked(call: Call) -> dict[str, Any]:
    """Return the settings of a loss in the types of its defaults."""
    parameters = {p.name: p for p in _settings_of(call.name)}
    settings = dict(call.settings)
    older = "squared" not in parameters and "student_temperature" in parameters
    if older and "squared" in settings:
        _check_squared(call.name, _literal(settings.pop("squared")))
    Call(call.kind, call.name, settings).check_keys(parameters)
    return {key: _converted(call.name, parameters[key], settings[key]) for key in settings}


def _converted(loss: str, parameter: "Parameter", text: str) -> Any:
    """Return the value of one setting in the type of its default."""
    value, name, default = _literal(text), parameter.name, parameter.default
    if _kind(value) is not _kind(default):
        raise ConfigError(f"{loss}: {name} must be like {default!r}, not {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{loss}: {name} must be finite, but it is {value!r}.")
    if type(default) is int and value != int(value):
        raise ConfigError(f"{loss}: {name} must be a whole number, but it is {value!r}.")
    if role_of(parameter.annotation) in TEMPERATURES and not value > 0:
        raise ConfigError(f"{loss}: {name} must be above 0, but it is {value!r}.")
    return type(default)(value)


def _literal(text: str) -> Any:
    """Return a number or a boolean where the text is one, and the text itself otherwise."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def _check_squared(name: str, value: Any) -> None:
    """Accept `squared=false`, which objectives of older versions hold; refuse anything else."""
    if value is not False:
        raise ConfigError(
            f"{name}: a loss has no factor of the temperature squared (at 0.05 it would be 1/400, "
            "and the objective its other terms alone). Drop squared, and weigh the term instead: "
            f"0.1*{name}(...)."
        )


def _kind(value: Any) -> type:
    """Return bool, str, or float for any other number."""
    return type(value) if isinstance(value, (bool, str)) else float
