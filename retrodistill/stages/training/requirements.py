"""What an objective and the other settings need to be given: checked before any heavy work."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import SIGNAL_SOURCES, STUDENT_KINDS
from retrodistill.objectives.objective import LABELLED
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

    signals = {signal for term in terms for signal in term.signals}
    in_batch = any(name == "doc_vectors" or name.startswith("batch_") for name in signals)
    if settings.compare == "collection" and not in_batch:
        raise ConfigError(
            f"--compare collection is for losses over the batch, and objective "
            f"{settings.objective!r} has none: it looks at a query's own candidates. Leave it out, "
            "or take contrastive or listwise-kl-in-batch."
        )
    absent = signals.difference(*(source.gives for source in sources))
    for name in SIGNAL_SOURCES:
        source: type[SignalSource] = SIGNAL_SOURCES[name]
        if absent & source.gives:
            raise ConfigError(
                f"objective {settings.objective!r} needs {source.about}: give --{name}."
            )
    if SEVERAL in absent:
        raise ConfigError(
            f"objective {settings.objective!r} learns from several teachers and names none: write "
            f"{EXAMPLE}, with --scores LABEL=STORE."
        )
    for signal in sorted(absent & {*LABELLED}):
        raise ConfigError(
            f"objective {settings.objective!r} needs {signal}, which only a label gives: write "
            f"{signal}=LABEL.scores, with --scores LABEL=STORE or --teacher LABEL=TEACHER."
        )
    for signal in sorted(absent):
        label, _, name = signal.rpartition(".")
        if label:
            stored = f", or --scores {label}=STORE" if name == "scores" else ""
            raise ConfigError(
                f"objective {settings.objective!r} asks for {signal}: give --teacher "
                f"{label}=TEACHER{stored}."
            )
    for each in sources:
        named = any("." in signal for signal in each.gives)
        if (each.live or named) and not each.gives & signals:
            example = "batch-kl" if each.live else f"listwise-kl(teacher_scores={min(each.gives)})"
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
    parse_negative_sampling(settings.negative_sampling)
    for flag in settings.flags_of_scores:
        if all(source.name != "scores" for source in sources):
            raise ConfigError(f"{flag} needs teacher scores: give --scores.")
    if settings.dev_split == split:
        raise ConfigError(f"--dev-split {split} is trained on: measure on another split.")


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
