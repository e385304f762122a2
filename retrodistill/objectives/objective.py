"""Parse and compute an objective, a weighted sum of losses.

listwise-kl(student_temperature=0.05) + 0.1*contrastive
"""

import ast
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from retrodistill.base.calls import Call, parse_call
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.registry import LOSSES
from retrodistill.objectives.labels import (
    EMA,
    HEADS,
    JOINT,
    LABELLED,
    OWN,
    STUDENT,
    TEACHERS,
    places,
    read_aliases,
    stops_gradient,
)
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
    "teachers": "E B N",
    "pair_scores": "B N",
    "preferences": "B N N",
    "preference_mask": "B N N",
    "batch_scores": "B M",
    "teacher_batch_scores": "B M",
    "batch_candidates": "B M",
    "batch_labels": "B M",
    "batch_mask": "B M",
    "layer_scores": "L B M",
    "teacher_layer_scores": "K B M",
    "batch_relevant": "B M",
    "query_vectors": "A D",
    "doc_vectors": "M D",
    "second_query_vectors": "A D",
    "second_doc_vectors": "M D",
    "matched_query_vectors": "A T",
    "matched_doc_vectors": "M T",
    "teacher_query_vectors": "A T",
    "teacher_doc_vectors": "M T",
    "queue_vectors": "Q T",
    "matched_span_vectors": "H T",
    "teacher_span_vectors": "H T",
    "token_ids": "X W",
    "token_types": "X W",
    "token_mask": "X W",
    "student_states": "J X W U",
    "teacher_states": "J X W U",
    "attention_vectors": "R X W V",
    "teacher_attention_vectors": "R X W Z",
    "token_vectors": "X W P",
    "teacher_token_vectors": "X W S",
    "scored_tokens": "X W",
    "student_loss": "",
    "teacher_loss": "",
    "progress": "",
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
`batch_mask`: which are relevant, and which may be compared at all. `batch_relevant`: which are
relevant, those included that only another query brought into the batch. `layer_scores`,
`teacher_layer_scores`: scores of the same documents from each layer's vectors, first layer first.

Vectors, of the texts of all processes: the A queries begin with the B of this process, which are
all of them if there is no other. `query_vectors`, `doc_vectors`: the student's, of queries and
distinct documents; `second_...`: the same by a second pass, with another dropout. `teacher_...`:
the teacher's vectors of the same texts; `matched_...`: the student's in the teacher's space,
through a learned projection where dimensions differ. `queue_vectors`: the teacher's vectors of
other documents. `..._span_vectors`: those of the sentences of this process's documents.

Tokens of the batch's texts, or of its pairs. `token_ids`, `token_types`: what the student read;
`token_mask`: which are real. `student_states`, `teacher_states`: hidden states of layers that match
each other, the student's in the teacher's width. `attention_vectors`,
`teacher_attention_vectors`: the queries, keys and values of an attention layer. `token_vectors`,
`teacher_token_vectors`: what late-interaction models compare; `scored_tokens`: of which tokens.

Meta-learning. `student_loss`, `teacher_loss`: the sum of the objective's other terms on one part of
a batch, by the weights as they are, and by those that were adapted to the part before it.

`progress`: the share of the training's steps that are done, where a term has a start.

A teacher with a label gives `LABEL.scores`, `LABEL.batch_scores` and `LABEL.layer_scores`, of the
shapes of `teacher_scores` and its like, to the terms that ask for them:
`listwise-kl(teacher_scores=LABEL.scores)`. What is trained may take the student's place as well: a
joint teacher, `listwise-ce(student_scores=joint.scores)`, or a head of a student with several,
`contrastive(batch_scores=sparse.batch_scores)`. `student` is the label of the student itself, for
what these learn from it. `teachers` are the scores of E teachers that a term names, each divided by
its temperature: `teachers=teacher_scores/2&LABEL.scores/0.05`. `base_scores`, `start_scores`: those
of the model that the teacher was, and that the student was, before training.
"""

TRANSFERS = frozenset({"student_loss", "teacher_loss"})
"""Signals of meta-learning."""

_TERM = re.compile(r"\s*(?:(?P<weight>[0-9.eE+-]+?)\s*\*)?(?P<call>.*)", re.DOTALL)


def shape_of(signal: str) -> str | None:
    """Return the letters of a signal's shape, also of `LABEL.scores`; None if it is unknown."""
    label, _, name = signal.rpartition(".")
    if not label:
        return SIGNALS.get(name)
    if f"teacher_{name}" not in LABELLED:
        return None
    # each model has a number of layers of its own
    return SIGNALS[f"teacher_{name}"].replace("K", f"K:{label}")


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

    stop_gradient: bool = False
    """Whether a trained model in the teacher's place gets no gradient from this term."""

    start: float = 0.0
    """Share of the training's steps before the term takes part."""

    teachers: Mapping[str, float] = field(default_factory=dict)
    """Signal -> temperature of the teachers that the term names, if the loss takes several."""

    number: int = 1
    """Which one it is of the terms that train the same by the same loss and teacher, from 1."""

    @property
    def trained(self) -> str:
        """Label of what the term trains: of a joint teacher, or of a head; empty for a student."""
        labels = [alias.partition(".")[0] for name, alias in self.aliases.items() if name in OWN]
        return labels[0] if labels else ""

    @property
    def of_joint_teacher(self) -> bool:
        """Whether the joint teacher is in the student's place, and learns from it."""
        return self.trained == JOINT

    @property
    def of_transfers(self) -> bool:
        """Whether it compares losses of adapted weights, rather than what they are losses of."""
        return not TRANSFERS.isdisjoint(self.signals)

    @property
    def taught_by(self) -> str:
        """Label of the teacher that it learns from; empty where that has none."""
        labels = (
            alias.partition(".")[0] for name, alias in self.aliases.items() if name in TEACHERS
        )
        return next(labels, "")

    @property
    def key(self) -> str:
        """Name of its value in logs and manifests, one for each term of an objective.

        The loss, behind the label of what it trains, and before that of its teacher:
        `joint.listwise-ce`, `listwise-kl[previous]`. Of equal terms those after the first have
        their number: `contrastive[2]`.
        """
        name = f"{self.trained}.{self.name}" if self.trained else self.name
        marks = [self.taught_by, str(self.number) if self.number > 1 else ""]
        return f"{name}[{','.join(filter(None, marks))}]" if any(marks) else name

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
    terms: list[LossTerm] = []
    earlier: Counter[str] = Counter()
    for piece in re.split(r"\+(?![^(]*\))(?<!\d[eE]\+)", text):
        match = _TERM.fullmatch(piece)
        assert match is not None
        call = parse_call(
            match["call"], "loss", example="listwise-kl(teacher_temperature=0.5) + 0.1*contrastive"
        )
        weight = _weight(match["weight"] or "1", text)
        aliases = read_aliases(call, _signals_of(call.name))
        options = {key: call.settings[key] for key in call.settings if key not in aliases}
        several = options.pop(SEVERAL, "") if SEVERAL in _signals_of(call.name) else ""
        stop_gradient = stops_gradient(call.name, options.pop("stop_gradient", None), aliases)
        start = _start(call.name, options.pop("start", "0"))
        settings = _checked(Call(call.kind, call.name, options))
        term = LossTerm(
            name=call.name,
            weight=weight,
            settings=settings,
            aliases=aliases,
            stop_gradient=stop_gradient,
            start=start,
            teachers=parse_teachers(several, call.name) if several else {},
        )
        earlier[term.key] += 1
        terms.append(replace(term, number=earlier[term.key]))
    if terms and all(term.start for term in terms):
        raise ConfigError(f"objective {text!r}: one term at least must start at 0.")
    return tuple(terms)


INPUTS = {
    "teacher_scores": "--scores",
    "log_weights": "--scores",
    "preferences": "--preferences",
    "teacher_doc_vectors": "--vectors",
    "teacher_span_vectors": "--vectors",
    "teacher_states": "--states",
    "teacher_attention_vectors": "--states",
    "teacher_token_vectors": "--states",
    "teacher_batch_scores": "--teacher",
    "teacher_layer_scores": "--teacher",
    "labels": "labels",
    "batch_labels": "labels",
    "batch_relevant": "labels",
}
"""Signal -> what provides it: a flag of `train`, or labels in the split."""


def inputs_of(terms: Sequence[LossTerm]) -> tuple[str, ...]:
    """Return the inputs that an objective needs, each once: flags of `train`, and labels."""
    signals = [signal for term in terms for signal in term.signals]
    inputs: list[str | None] = []
    for signal in signals:
        label, dot, name = signal.partition(".")
        if label == JOINT:
            inputs += ["--joint-teacher", "--scores" if name == "scores" else None]
        elif dot and label not in (EMA, STUDENT, *HEADS):
            inputs.append(f"--teacher {label}=TEACHER")
        else:
            inputs.append(INPUTS.get(signal))
    return tuple(dict.fromkeys(name for name in inputs if name))


def needs_of(settings: "TrainSettings") -> tuple[str, ...]:
    """Return the inputs that training with these settings needs: flags of `train`, and labels."""
    needs = inputs_of(parse_objective(settings.objective))
    if settings.inner_learning_rate is not None:
        needs = (*needs, "--meta-view")
    if settings.flags_of_scores and "--scores" not in needs:
        needs = (*needs, "--scores")
    if settings.student_ranks and "labels" not in needs:
        needs = ("labels", *needs)
    if settings.positives != "labels" or settings.label_above is not None:
        needs = tuple(need for need in needs if need != "labels")
    return needs


def bind(terms: Sequence[LossTerm]) -> "Callable[[Signals], dict[str, Tensor]]":
    """Return a function from signals to the weighted value of each term, by its key.

    A loss asks for a signal by naming a parameter after it, as a pytest test asks for a fixture.
    A term whose start is above the signal `progress` is omitted.

    Raises:
        ConfigError: on a call, if a loss asks for a signal that the batch lacks.

    """
    bound = [
        (term, term.function, places(term.inputs), [*places({s: s for s in term.signals}).values()])
        for term in terms
    ]

    def objective(signals: Signals) -> "dict[str, Tensor]":
        values: dict[str, Tensor] = {}
        done = float(signals.get("progress", 1.0))
        for term, loss, required, needed in bound:
            if term.start > done:
                continue
            missing = [name for name in needed if name not in signals]
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
            if term.stop_gradient:
                arguments |= {
                    parameter: arguments[parameter].detach()
                    for parameter in term.aliases
                    if parameter in LABELLED
                }
            value = term.weight * loss(**arguments, **term.settings)
            values[term.key] = values[term.key] + value if term.key in values else value
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


def _start(loss: str, text: str) -> float:
    """Return the share of the steps before a term takes part."""
    value = _literal(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ConfigError(
            f"{loss}: start must be a share of the steps, from 0 to below 1, not {text!r}."
        )
    return float(value)


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
