"""How many candidates a teacher believes in, and the temperature that makes it a wanted number."""

from dataclasses import dataclass

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.rankings.segments import FROZEN, Floats, Segments, numbered, scores_of
from retrodistill.data.store.runs import Run

BISECTIONS = 100
CLOSE = 1e-4
"""Relative distance from the target at which a temperature is taken."""

MOLTEN = 1e6
"""Multiple of the largest gap of scores that, as a temperature, makes all masses equal."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and how flat it makes the teacher's distributions."""

    temperature: float
    """Divisor of the scores."""

    target: float
    """Median perplexity that was wanted."""

    perplexity: float
    """Median perplexity that is reached."""

    quartiles: tuple[float, float]
    """Lower and upper quartile of the lists' perplexities."""

    lists: int
    constant: int
    """Segments of equal scores, whose perplexity no temperature changes."""

    short: int
    """Segments of no more than `target` candidates, which cannot reach it."""


def perplexity(run: Run, temperature: float, *, first: int | None = None) -> Floats:
    """Return the perplexity of softmax(scores / temperature) of each of `run.query_ids`.

    It says over how many candidates a teacher spreads its belief: from 1 to as many as there
    are. Only the `first` best ones of each query count (None: all).

    Raises:
        ConfigError: the temperature is not positive, or `first` below 1.

    """
    if not 0 < temperature < np.inf:
        raise ConfigError(f"a temperature is a positive number, but it is {temperature}.")
    scores, lists = _best(run, first)
    return np.exp(lists.entropy(scores, temperature))


def calibrated_temperature(run: Run, target: float, *, first: int | None = None) -> Calibration:
    """Return the temperature at which the lists' median perplexity is `target`.

    A list is a query's `first` best candidates (None: all). Each list's perplexity, so their
    median too, grows with the temperature: it is bisected on a logarithmic scale. For listwise
    losses over n candidates, targets from 2 to n/3 leave the student something to learn beside
    the first document, and do not ask it to learn the noise of the last.

    Raises:
        ConfigError: `first` is below 1.
        DataError: no temperature reaches the target: the median list has too few candidates, or
            too many that share the best score.

    """
    scores, lists = _best(run, first)
    gaps = lists.spread(scores[lists.starts]) - scores
    ties = lists.sums(gaps == 0)
    constant = int((ties == lists.lengths).sum())
    _check_reach(target, ties, lists, constant)
    apart = gaps[gaps > 0]
    cold, hot = apart.min() / FROZEN, apart.max() * MOLTEN
    for _ in range(BISECTIONS):
        temperature = float(np.sqrt(cold * hot))
        found = np.exp(lists.entropy(scores, temperature))
        reached = float(np.median(found))
        if abs(reached - target) <= CLOSE * target:
            break
        cold, hot = (temperature, hot) if reached < target else (cold, temperature)
    lower, upper = np.quantile(found, (0.25, 0.75)).tolist()
    short = int((lists.lengths <= target).sum())
    return Calibration(temperature, target, reached, (lower, upper), len(lists), constant, short)


def _best(run: Run, first: int | None) -> tuple[Floats, Segments]:
    """Return the scores of each query's `first` best candidates, best first, and their lists."""
    if first is not None and first < 1:
        raise ConfigError(f"first must be at least 1, but it is {first}.")
    run = run if first is None else run.top(first)
    return scores_of(run), Segments.of(numbered([run], "query_id")[1][0])


def _check_reach(target: float, ties: Floats, lists: Segments, constant: int) -> None:
    """Raise DataError unless a temperature between 0 and infinity reaches the target."""
    lowest, highest = (float(np.median(n)) if len(n) else 0.0 for n in (ties, lists.lengths))
    if not lowest < target < highest:
        raise DataError(
            f"no temperature gives {len(lists):,} lists a median perplexity of {target:g}: it "
            f"lies above {lowest:g} (the candidates that share the best score) and below "
            f"{highest:g} (all candidates), and {constant:,} lists are constant. "
            "Choose a target in between, or score more candidates."
        )
