"""What meta-learning needs and what it does not go with: checked before any heavy work."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.data.datasets.mixtures import view_names
from retrodistill.models.students.kinds import DENSE

if TYPE_CHECKING:
    from retrodistill.base.config import TrainSettings
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.sources import SignalSource

STORED = ("scores", "preferences")
"""Names of sources that are looked up by id, whatever text is read; a label may follow."""

LEAST = 2
"""Queries of a part: one alone has no other query's document as its negative."""


def check_meta(
    terms: "Sequence[LossTerm]",
    settings: "TrainSettings",
    sources: "Collection[SignalSource | type[SignalSource]]",
) -> None:
    """Check that the objective, the student and the sources are such that weights can be adapted.

    Raises:
        ConfigError: they are not.

    """
    comparing = [term.name for term in terms if term.of_transfers]
    if settings.inner_learning_rate is None:
        if comparing:
            raise ConfigError(
                f"{comparing[0]} compares the losses of adapted weights: give "
                "--inner-learning-rate RATE and three --meta-view, such as --recipe maml-align has."
            )
        return
    if len(comparing) == len(terms):
        raise ConfigError(
            f"objective {settings.objective!r} has no loss to adapt weights by: add one, such as "
            "contrastive(temperature=0.05)."
        )
    for source in sources:
        if source.live or source.name.partition("-")[0] not in STORED:
            raise ConfigError(
                f"--inner-learning-rate goes with labels, --scores and --preferences, not with "
                f"{source.about}, which would read other texts than the parts of a batch."
            )
    kind = settings.student_kind
    if kind != DENSE and not STUDENT_KINDS[kind].task.reads_apart:  # imports torch
        raise ConfigError(
            "--inner-learning-rate is for students that read queries and documents apart, not for "
            f"--student-kind {kind}."
        )


def check_meta_views(
    specs: Sequence[str], terms: "Sequence[LossTerm]", settings: "TrainSettings"
) -> None:
    """Check that there are as many views as the transfers need, and queries for each.

    Raises:
        ConfigError: there are not, or a spec is malformed.

    """
    if settings.inner_learning_rate is None:
        if specs:
            raise ConfigError(
                "--meta-view needs --inner-learning-rate: how weights are adapted from one view "
                "to the next."
            )
        return
    for spec in specs:
        view_names(spec)
    comparing = [term.name for term in terms if term.of_transfers]
    needed = 3 if comparing else 2
    if len(specs) < needed:
        why = f"{comparing[0]} compares two transfers" if comparing else "a transfer is between two"
        raise ConfigError(
            f"--inner-learning-rate needs {needed} --meta-view at least, but {len(specs)} "
            f"{'is' if len(specs) == 1 else 'are'} given: {why}. Write --meta-view own --meta-view "
            f"german:own{' --meta-view german+greek:own' if comparing else ''}."
        )
    if settings.batch_size % len(specs) or settings.batch_size < LEAST * len(specs):
        raise ConfigError(
            f"--batch-size {settings.batch_size} cannot be dealt out to {len(specs)} parts, one a "
            f"--meta-view: give a multiple of {len(specs)}, {LEAST * len(specs)} at least."
        )
