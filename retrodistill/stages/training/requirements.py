"""What an objective and the other settings need to be given: checked before any heavy work."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import SIGNAL_SOURCES, STUDENT_KINDS
from retrodistill.objectives.labels import HEAD_SIGNALS, HEADS, LABELLED, STUDENT
from retrodistill.objectives.teachers import EXAMPLE, SEVERAL

if TYPE_CHECKING:
    from retrodistill.base.config import TrainSettings
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.sources import SignalSource


def check_settings(
    terms: "Sequence[LossTerm]",
    settings: "TrainSettings",
    split: str,
    sources: "Collection[SignalSource | type[SignalSource]]",
) -> None:
    """Check that the objective and the other settings have what they learn from.

    Raises:
        ConfigError: something is absent, or a setting does not fit.

    """
    from retrodistill.stages.training.sampling import parse_negative_sampling
    from retrodistill.stages.training.sources.joint import JointTeacher, check_joint
    from retrodistill.stages.training.transfers import check_meta

    check_meta(terms, settings, sources)
    signals = {signal for term in terms for signal in term.signals}
    _check_heads(signals, settings, sources)
    in_batch = any(name == "doc_vectors" or name.startswith("batch_") for name in signals)
    if settings.compare == "collection" and not in_batch:
        raise ConfigError(
            f"--compare collection is for losses over the batch, and objective "
            f"{settings.objective!r} has none: it looks at a query's own candidates. Leave it out, "
            "or take contrastive or listwise-kl-in-batch."
        )
    absent = signals.difference(*(source.gives for source in sources))
    _check_given(absent, settings.objective, sources)
    for each in sources:
        named = any("." in signal for signal in each.gives)
        if (each.live or named) and not each.gives & signals:
            stored = f"listwise-kl(teacher_scores={min(each.gives)})"
            example = each.example if each.live else stored
            raise ConfigError(
                f"objective {settings.objective!r} learns nothing from {each.about}: it asks for "
                f"no {' and no '.join(sorted(each.gives))}. Drop the teacher, or add a loss such "
                f"as {example}."
            )
        if named and not each.live and all(source.name != "scores" for source in sources):
            raise ConfigError(
                f"{each.about} are of candidates that another run lists: give --scores RUN without "
                "a label beside them."
            )
        if isinstance(each, JointTeacher):
            check_joint(each, terms, settings)
    if settings.teacher_learning_rate is not None and not any(
        isinstance(source, JointTeacher) for source in sources
    ):
        raise ConfigError("--teacher-learning-rate is that of --joint-teacher: give one.")
    parse_negative_sampling(settings.negative_sampling)
    for flag in settings.flags_of_scores:
        if all(source.name != "scores" for source in sources):
            raise ConfigError(f"{flag} needs teacher scores: give --scores.")
    if settings.dev_split == split:
        raise ConfigError(f"--dev-split {split} is trained on: measure on another split.")


def _check_given(
    absent: "Collection[str]",
    objective: str,
    sources: "Collection[SignalSource | type[SignalSource]]",
) -> None:
    """Raise ConfigError if a source could give a signal that is absent, or only a label could."""
    for name in SIGNAL_SOURCES:
        source: type[SignalSource] = SIGNAL_SOURCES[name]
        lacking = sorted(source.gives.intersection(absent))
        if lacking and any(each.name == name for each in sources):
            raise ConfigError(
                f"objective {objective!r} asks for {', '.join(lacking)}, which this "
                f"--{name} does not give: take one that does, such as bi-encoder:MODEL."
            )
        if lacking:
            raise ConfigError(f"objective {objective!r} needs {source.about}: give --{name}.")
    if SEVERAL in absent:
        raise ConfigError(
            f"objective {objective!r} learns from several teachers and names none: write "
            f"{EXAMPLE}, with --scores LABEL=STORE."
        )
    for signal in sorted({*LABELLED}.intersection(absent)):
        raise ConfigError(
            f"objective {objective!r} needs {signal}, which only a label gives: write "
            f"{signal}=LABEL.scores, with --scores LABEL=STORE or --teacher LABEL=TEACHER."
        )
    for signal in sorted(absent):
        label, _, name = signal.rpartition(".")
        if label and label not in (STUDENT, *HEADS):
            stored = f", or --scores {label}=STORE" if name == "scores" else ""
            raise ConfigError(
                f"objective {objective!r} asks for {signal}: give --teacher "
                f"{label}=TEACHER{stored}."
            )


def _check_heads(
    signals: "Collection[str]",
    settings: "TrainSettings",
    sources: "Collection[SignalSource | type[SignalSource]]",
) -> None:
    """Check that the student has the heads that an objective names, and no teacher their names."""
    heads = HEAD_SIGNALS.intersection(signals)
    if not heads:
        return
    if not heads <= STUDENT_KINDS[settings.student_kind].task.gives:
        raise ConfigError(
            f"objective {settings.objective!r} asks for {', '.join(sorted(heads))}, heads that "
            f"--student-kind {settings.student_kind} does not have: give --student-kind hybrid."
        )
    for source in sources:
        for signal in sorted(heads & source.gives):
            raise ConfigError(
                f"{signal} is of a head of the student and of {source.about}: give the teacher "
                f"another label than {signal.partition('.')[0]}."
            )


def check_kind(settings: "TrainSettings") -> None:
    """Check that the kind of student exists and has the settings that not every kind has.

    Raises:
        ConfigError: the kind is unknown, or lacks a setting.

    """
    kind = STUDENT_KINDS[settings.student_kind]
    every_kind = [STUDENT_KINDS[name] for name in STUDENT_KINDS]
    for name in sorted(set().union(*(listed.settings for listed in every_kind)) - kind.settings):
        if getattr(settings, name) not in (None, False, ()):
            owners = ", ".join(listed.name for listed in every_kind if name in listed.settings)
            raise ConfigError(
                f"--{name.replace('_', '-')} is for --student-kind {owners}, not {kind.name}."
            )
    if settings.query_order == "clusters" and kind.encoder is None:
        raise ConfigError(
            "--query-order clusters needs one vector for a query, but "
            f"--student-kind {kind.name} has none."
        )


def follows_vectors(terms: "Sequence[LossTerm]") -> bool:
    """Tell whether an objective brings the student's vectors to those of a teacher."""
    return any(signal.startswith("matched_") for term in terms for signal in term.signals)
