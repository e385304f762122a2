"""Which student is kept, and whether another round is worth its price."""

from collections.abc import Mapping
from dataclasses import dataclass

from retrodistill.stages.pipelines.rounds.layout import START, Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The best student so far, and whether to stop."""

    name: str
    """Name of the student; START where none is better than it."""

    values: Mapping[str, float]
    """What decides, by student, in order."""

    stops: str = ""
    """Why there is no further round; empty if there may be one."""

    @property
    def paid(self) -> bool:
        """Return whether a trained student is kept."""
        return self.name != START


def kept_of(layout: Layout, values: Mapping[str, float]) -> Kept:
    """Return what is kept after the rounds that have values, and whether they end.

    The start model competes unless the students are cut from it or of another kind: a smaller
    student is wanted although it is worse. Of equal students the earlier one is kept.
    """
    config = layout.config
    shaped = layout.trainings[0].shaping or layout.start_retriever != layout.retriever
    competing = [name for name in values if name != START or not shaped]
    best = max(competing, key=lambda name: values[name], default=START)
    # The number of rounds since the last whose best student gained --min-delta.
    reached = float("-inf") if shaped else values[START]
    rounds, waited = 0, 0
    for rounds in range(1, config.rounds + 1):
        names = [turn.name for turn in layout.of_round(rounds) if turn.name in values]
        if not names:
            rounds -= 1
            break
        highest = max(values[name] for name in names)
        gained = highest > reached and highest - reached >= config.min_delta
        waited = 0 if gained else waited + 1
        reached = max(reached, highest) if gained else reached
    stops = ""
    if waited >= config.patience:
        stops = f"{waited} round{'s' * (waited > 1)} without a gain in {config.metric}" + (
            f" of {config.min_delta:g}" if config.min_delta else ""
        )
    elif rounds == config.rounds:
        stops = f"--rounds {config.rounds}"
    return Kept(name=best, values=dict(values), stops=stops)
