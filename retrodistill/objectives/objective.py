"""Named losses to one number a batch: `listwise-kl(student_temperature=0.05) + 0.1*contrastive`."""

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError, DataError, did_you_mean
from retrodistill.base.registry import LOSSES

if TYPE_CHECKING:
    from torch import Tensor

    from retrodistill.base.config import TrainSettings

SIGNALS = {
    "student_scores": "B N",
    "teacher_scores": "B N",
    "mask": "B N",
    "labels": "B N",
    "trusted_negatives": "B N",
    "log_weights": "B N",
    "pair_scores": "B N",
    "preferences": "B N N",
    "preference_mask": "B N N",
    "batch_scores": "B M",
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
"""The vocabulary: every signal that a batch can carry, and its shape.

Lists, one a query. `student_scores`, `teacher_scores`: scores of its own candidates, the positive
first. `mask`: which of them are real, not padding. `labels`: which of them are relevant.
`trusted_negatives`: which may serve as negatives where they are not labelled; the others may be
relevant without a label. `log_weights`: what a drawn candidate stands for, as the logarithm of a
weight.
`pair_scores`: the scores of a head that sees both vectors. `preferences`: a teacher's log p(i is
better than j), in nats, where `preference_mask` says that it compared them.

The batch. `batch_scores`: the student's scores of every distinct document of the batch.
`batch_candidates`: which of those are candidates of the query itself. `batch_labels`,
`batch_mask`: which are relevant, and which may be compared at all.

Vectors. `query_vectors`, `doc_vectors`: the student's, of the batch's queries and distinct
documents. `teacher_...`: those of the model that was named for them; `matched_...`: the student's
in that model's space, through a learned projection where it has another dimension.
`queue_vectors`: the teacher's vectors of other documents.
"""

_TERM = re.compile(
    r"\s*(?:(?P<weight>[0-9.eE+-]+?)\s*\*)?\s*(?P<name>[\w:.-]+)\s*(?:\((?P<settings>[^)]*)\))?\s*"
)


class Signals(dict[str, "Tensor"]):
    """The named tensors of one batch, with their shapes checked once.

    Raises:
        DataError: a name outside the vocabulary, or shapes that do not fit each other: a teacher
            of shape (B, 1) would otherwise be broadcast over the list without a word.

    """

    def __init__(self, **tensors: "Tensor") -> None:
        super().__init__(tensors)
        sizes: dict[str, tuple[int, str]] = {}
        for name, tensor in tensors.items():
            if name not in SIGNALS:
                raise DataError(f"{name!r} is no signal. Known: {', '.join(SIGNALS)}.")
            letters = SIGNALS[name].split()
            if tensor.ndim != len(letters):
                raise DataError(
                    f"signal {name} must have shape ({', '.join(letters)}), "
                    f"but its shape is {tuple(tensor.shape)}."
                )
            for letter, size in zip(letters, tensor.shape, strict=True):
                known, first = sizes.setdefault(letter, (size, name))
                if size != known:
                    raise DataError(
                        f"signal {name} has {letter} = {size}, but {first} has {letter} = {known}."
                    )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossTerm:
    """One loss of an objective: its name, its weight, its own settings."""

    name: str
    weight: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> "Callable[..., Tensor]":
        """The loss itself."""
        return LOSSES[self.name]  # type: ignore[no-any-return]

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals that the loss asks for."""
        parameters = LOSSES.signature(self.name).parameters.values()
        return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)


def parse_objective(text: str) -> tuple[LossTerm, ...]:
    """Return the terms of a weighted sum such as `listwise-kl + 0.1*contrastive(temperature=0.02)`.

    Raises:
        ConfigError: a loss or a setting is unknown, a weight is not a number above 0, or the text
            is no such sum.

    """
    terms = []
    for part in re.split(r"\+(?![^(]*\))(?<!\d[eE]\+)", text):
        match = _TERM.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"objective {text!r} is not understood at {part.strip()!r}. "
                "Write a sum such as `listwise-kl(teacher_temperature=0.5) + 0.1*contrastive`."
            )
        term = LossTerm(name=match["name"], weight=_weight(match["weight"] or "1", text))
        settings = _checked(term, _settings(match["settings"] or ""))
        terms.append(replace(term, settings=settings))
    return tuple(terms)


INPUTS = {
    "teacher_scores": "--scores",
    "log_weights": "--scores",
    "preferences": "--preferences",
    "teacher_doc_vectors": "--vectors",
    "labels": "labels",
    "batch_labels": "labels",
}
"""What has to be given for a signal: a flag of `train`, or labels in the split."""


def inputs_of(terms: Sequence[LossTerm]) -> tuple[str, ...]:
    """Return what an objective needs to be given, each once."""
    signals = [signal for term in terms for signal in term.signals]
    return tuple(dict.fromkeys(INPUTS[signal] for signal in signals if signal in INPUTS))


def needs_of(settings: "TrainSettings") -> tuple[str, ...]:
    """Return what a training by these settings needs to be given: flags of `train`, and labels."""
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
    bound = [(term, term.function, term.signals) for term in terms]

    def objective(signals: Signals) -> "dict[str, Tensor]":
        values: dict[str, Tensor] = {}
        for term, loss, wanted in bound:
            absent = [name for name in wanted if name not in signals]
            if absent:
                raise ConfigError(
                    f"loss {term.name!r} needs {', '.join(absent)}, but this batch carries only "
                    f"{', '.join(signals)}. Give --scores (or --vectors) of a teacher, "
                    "or drop the loss."
                )
            value = term.weight * loss(**{name: signals[name] for name in wanted}, **term.settings)
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
            "above 0; to leave a term out, drop it."
        )
    return weight


def _settings(text: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name in settings:
            raise ConfigError(f"loss setting {name!r} is given twice in ({text}).")
        try:
            settings[name] = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        except (ValueError, SyntaxError):
            settings[name] = value
        if not (equals and value):
            raise ConfigError(f"loss setting {part!r} must read name=value.")
    return settings


def _checked(term: LossTerm, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in the types of the loss's defaults."""
    parameters = LOSSES.signature(term.name).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    checked = {}
    for name, value in settings.items():
        if name == "squared" and name not in known and "student_temperature" in known:
            _check_squared(term.name, value)
            continue
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"loss {term.name!r} has no setting {name!r}.{hint} It has: {', '.join(known)}."
            )
        if _kind(value) is not _kind(known[name]):
            raise ConfigError(f"{term.name}: {name} must be like {known[name]!r}, not {value!r}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{term.name}: {name} must be finite, but it is {value!r}.")
        if type(known[name]) is int and value != int(value):
            raise ConfigError(f"{term.name}: {name} must be a whole number, but it is {value!r}.")
        if name.endswith("temperature") and not value > 0:
            raise ConfigError(f"{term.name}: {name} must be above 0, but it is {value!r}.")
        checked[name] = type(known[name])(value)
    return checked


def _check_squared(name: str, value: Any) -> None:
    """Accept `squared=false`, which objectives of older versions say; refuse anything else."""
    if value is not False:
        raise ConfigError(
            f"{name}: a loss has no factor of the temperature squared (at 0.05 it would be 1/400, "
            "and the objective its other terms alone). Drop squared, and weigh the term instead: "
            f"0.1*{name}(...)."
        )


def _kind(value: Any) -> type:
    """Return bool, str, or float for any other number."""
    return type(value) if isinstance(value, (bool, str)) else float
