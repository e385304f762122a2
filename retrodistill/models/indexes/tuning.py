"""A recall as a promise: the cheapest effort that keeps it, measured against the exact index.

The effort is chosen with one half of the queries, by a lower confidence bound of its recall, which
is then measured on the other half: an estimate from the queries that an effort was chosen with is
too high, since the choice takes the luckiest of many.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Index
from retrodistill.models.indexes.exact import ExactIndex
from retrodistill.models.indexes.faiss import Effort

TIMED = 50
"""Queries that are asked alone, for the time of one."""
CONFIDENCE = 0.95
"""Of the one-sided bound that a promise rests on."""


@runtime_checkable
class Tunable(Index, Protocol):
    """An index whose search can be made faster or more exact."""

    kind: ClassVar[str]

    effort: Effort
    """The settings of a search."""

    @property
    def efforts(self) -> Sequence[Effort]:
        """The settings to try, each merged into `effort`."""
        ...


@dataclass(frozen=True, slots=True)
class Tried:
    """What one effort gave."""

    effort: Effort
    recall: float
    """Mean share of the exact `k` best that were found."""
    at_least: float
    """Lower confidence bound of that mean, by Student's t over the queries."""
    ms: float
    """Median time of a query that is asked alone, in milliseconds."""


@dataclass(frozen=True, slots=True)
class EffortTuning:
    """What was measured, and what was chosen."""

    target: float
    k: int
    queries: int
    """Number of queries that the effort was chosen with."""
    source: str
    """Where the queries came from."""
    chosen: Tried
    tried: Sequence[Tried]
    held_out: float | None
    """Recall of the chosen effort on the other half of the queries; None if there is none."""

    def to_dict(self) -> dict[str, Any]:
        """Return the form of the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EffortTuning":
        """Read back what `to_dict` gave.

        Raises:
            DataError: it has another form, as of an older version.

        """
        try:
            parts = {
                "chosen": Tried(**values["chosen"]),
                "tried": [Tried(**row) for row in values["tried"]],
            }
            return cls(**(values | parts))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"the manifest's record of the tuning cannot be read ({error}). Embed again."
            ) from error


def tune(
    index: Tunable,
    exact: ExactIndex,
    queries: NDArray[np.float32],
    *,
    target: float,
    k: int = 10,
    source: str = "queries",
) -> EffortTuning:
    """Return the fastest effort that keeps a recall at `k` of `target`, and all that were tried.

    An effort keeps it if the lower bound of its mean recall over every second query is at least
    `target`; the others measure what was chosen. Documents as good as the exact k-th count as
    found. The index is left at the chosen effort.

    Raises:
        ConfigError: the target is not above 0 and at most 1, or no effort reaches it.

    """
    if not 0 < target <= 1:
        raise ConfigError(f"--recall must be above 0 and at most 1, but it is {target}.")
    best = _neighbours(exact, queries, k)
    choosing, checking = queries[::2], queries[1::2]
    tried = []
    for effort in index.efforts:
        index.effort = index.effort | effort
        recalls = _recalls(index, choosing, best[::2], k)
        bound = round(_lower_bound(recalls), 4)
        recall = round(float(recalls.mean()), 4)
        tried.append(Tried(effort, recall, bound, _milliseconds(index, choosing, k)))
    keeping = [row for row in tried if row.at_least >= target]
    if not keeping:
        reached = max(tried, key=lambda row: (row.at_least, row.recall))
        raise ConfigError(
            f"no effort of {index.kind!r} keeps recall@{k} >= {target}: the best, "
            f"{reached.effort or 'its only one'}, reaches {reached.recall:.3f} with "
            f"{len(choosing)} {source}, which shows {reached.at_least:.3f} with a confidence of "
            f"{CONFIDENCE:.0%}. Take another --index (flat and ivf reach 1), or a lower --recall."
        )
    chosen = min(keeping, key=lambda row: row.ms)
    index.effort = index.effort | chosen.effort
    held_out = None
    if len(checking):
        held_out = round(float(_recalls(index, checking, best[1::2], k).mean()), 4)
    return EffortTuning(target, k, len(choosing), source, chosen, tried, held_out)


def choose_effort(tuning: EffortTuning, target: float) -> Tried:
    """Return the fastest effort of an earlier tuning that keeps another target.

    Raises:
        ConfigError: none of those tried does.

    """
    keeping = [row for row in tuning.tried if row.at_least >= target]
    if not keeping:
        reached = max(row.at_least for row in tuning.tried)
        raise ConfigError(
            f"--recall {target} was not reached when the index was tuned: at most {reached:.3f}. "
            "Ask for less, or embed with another --index."
        )
    return min(keeping, key=lambda row: row.ms)


def _neighbours(exact: ExactIndex, queries: NDArray[np.float32], k: int) -> list[frozenset[str]]:
    """Return for each query the exact `k` best, and those equal to the last of them."""
    found = []
    for ids, scores in zip(*exact.search(queries, 2 * k), strict=True):
        last = scores[min(k, len(scores)) - 1] - 1e-6
        found.append(frozenset(np.array(ids, object)[scores >= last]))
    return found


def _recalls(
    index: Tunable, queries: NDArray[np.float32], best: Sequence[frozenset[str]], k: int
) -> NDArray[np.float64]:
    """Return each query's share of the exact best that the index finds."""
    hits, _ = index.search(queries, k)
    shares = [
        len(exact.intersection(ids)) / min(k, len(exact))
        for ids, exact in zip(hits, best, strict=True)
    ]
    return np.array(shares, np.float64)


def _lower_bound(recalls: NDArray[np.float64]) -> float:
    """Return the one-sided lower confidence bound of the mean; the mean where all are equal."""
    from scipy.stats import t

    count = len(recalls)
    if count < 2 or not (deviation := float(recalls.std(ddof=1))):
        return float(recalls.mean())
    return float(recalls.mean()) - float(t.ppf(CONFIDENCE, count - 1)) * deviation / sqrt(count)


def _milliseconds(index: Tunable, queries: NDArray[np.float32], k: int) -> float:
    times = []
    for row in range(min(TIMED, len(queries))):
        start = time.perf_counter()
        index.search(queries[row : row + 1], k)
        times.append(time.perf_counter() - start)
    return round(1e3 * float(np.median(times)), 4)
