"""Scores of labelled models in an objective: `listwise-kl(teacher_scores=previous.scores)`."""

import re
from collections.abc import Iterable, Mapping

from retrodistill.base.calls import Call
from retrodistill.base.errors import ConfigError

JOINT, STUDENT = "joint", "student"
"""Labels of the teacher that is trained with the student, and of the student."""

EMA = "ema"
"""Label of the average of the student's weights."""

HEADS = ("dense", "sparse", "multi-vector")
"""Labels of the heads of a hybrid student."""

TEACHERS = {
    "teacher_scores": "scores",
    "teacher_batch_scores": "batch_scores",
    "teacher_layer_scores": "layer_scores",
}
"""Signals that a labelled model can give in a teacher's place, and their names behind its label."""

LABELLED = TEACHERS | {"base_scores": "scores", "start_scores": "scores"}
"""The same with those that have no other source."""

OWN = {"student_scores": "scores", "batch_scores": "batch_scores", "layer_scores": "layer_scores"}
"""The same in the student's place, where a joint teacher or a head is what a term trains."""

HEAD_SIGNALS = frozenset(f"{head}.{name}" for head in HEADS for name in ("scores", "batch_scores"))
"""Signals of the heads of a hybrid student."""

_ALIAS = re.compile(r"[A-Za-z][\w-]*\.\w+")


def read_aliases(call: Call, signals: Iterable[str]) -> dict[str, str]:
    """Return the labelled signals of a call, by the parameter whose place they take.

    `signals` are the parameters of the loss that are signals.

    Raises:
        ConfigError: an alias does not name such a signal or one of another shape, or it would train
            a model that is not trained.

    """
    suffixes = {**LABELLED, **OWN}
    aliases = {
        name: call.settings[name] for name in signals if name in suffixes and name in call.settings
    }
    for name, alias in aliases.items():
        label, _, suffix = alias.partition(".")
        if not _ALIAS.fullmatch(alias) or suffix != suffixes[name]:
            raise ConfigError(
                f"{call.name}: {name}={alias} is not understood. Write "
                f"{name}=LABEL.{suffixes[name]}, with --teacher LABEL=TEACHER."
            )
        if name in OWN and label not in (JOINT, *HEADS):
            raise ConfigError(
                f"{call.name}: {name}={alias} would train {label}. What a term can train beside "
                f"the student as a whole is a joint teacher ({JOINT}), or a head of a hybrid "
                f"student ({', '.join(HEADS)})."
            )
        if label == STUDENT and not aliases.keys() & OWN.keys():
            raise ConfigError(
                f"{call.name}: {name}={alias} has the student learn from itself. It can teach a "
                f"joint teacher, or a head of its own: {call.name}(...={JOINT}.scores)."
            )
    return aliases


def stops_gradient(loss: str, text: str | None, aliases: Mapping[str, str]) -> bool:
    """Return whether a term stops the gradient of a trained model that is its teacher.

    Raises:
        ConfigError: it is neither true nor false, or no trained model is the term's teacher.

    """
    if text is None:
        return False
    if text not in ("true", "false"):
        raise ConfigError(f"{loss}: stop_gradient must be true or false, not {text!r}.")
    labels = {alias.partition(".")[0] for name, alias in aliases.items() if name in LABELLED}
    if not labels & {JOINT, STUDENT, *HEADS}:
        raise ConfigError(
            f"{loss}: stop_gradient is for scores of a trained model in a teacher's place, such as "
            f"teacher_scores={JOINT}.scores or teacher_batch_scores={STUDENT}.batch_scores. No "
            "gradient enters any other teacher."
        )
    return text == "true"


def places(inputs: Mapping[str, str]) -> dict[str, str]:
    """Return the signal of each parameter, with `student.scores` as the student's own signal."""
    signals = {f"{STUDENT}.{name}": signal for signal, name in OWN.items()}
    return {parameter: signals.get(signal, signal) for parameter, signal in inputs.items()}
