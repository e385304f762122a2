"""A recall as a promise: the cheapest effort that keeps it, measured against the exact index."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.errors import ConfigError
from retrodistill.indexes.exact import ExactIndex
from retrodistill.indexes.faiss import Effort, FaissIndex

TIMED = 50
"""Queries that are asked alone, for the time of one."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What one effort gave."""

    effort: Effort
    recall: float
    """Mean share of the exact `k` best that were found."""
    ms: float
    """Median time of a query that is asked alone, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured, and what was chosen."""

    target: float
    k: int
    queries: int
    source: str
    """Where the queries came from."""
    chosen: Tried
    tried: Sequence[Tried]

    def to_dict(self) -> dict[str, Any]:
        """Return the form of the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Tuning":
        """Read back what `to_dict` gave."""
        parts = {
            "chosen": Tried(**values["chosen"]),
            "tried": [Tried(**one) for one in values["tried"]],
        }
        return cls(**(values | parts))


def tune(
    index: FaissIndex,
    exact: ExactIndex,
    queries: NDArray[np.float32],
    *,
    target: float,
    k: int = 10,
    source: str = "queries",
) -> Tuning:
    """Return the fastest effort whose recall at `k` is at least `target`, and all that were tried.

    Documents as good as the exact k-th count as found. The index is left at the chosen effort.

    Raises:
        ConfigError: the target is not from 0 to 1, or no effort reaches it.

    """
    if not 0 < target <= 1:
        raise ConfigError(f"--recall must be above 0 and at most 1, but it is {target}.")
    best = _neighbours(exact, queries, k)
    tried = []
    for effort in index.efforts:
        index.effort = index.effort | effort
        tried.append(
            Tried(
                effort, round(_recall(index, queries, best, k), 4), _milliseconds(index, queries, k)
            )
        )
    kept = [one for one in tried if one.recall >= target]
    if not kept:
        reached = max(tried, key=lambda one: one.recall)
        raise ConfigError(
            f"no effort of {index.kind!r} keeps recall@{k} >= {target}: the best, "
            f"{reached.effort or 'its only one'}, reaches {reached.recall:.3f}. Take another "
            "--index (flat and ivf reach 1), or a lower --recall."
        )
    chosen = min(kept, key=lambda one: one.ms)
    index.effort = index.effort | chosen.effort
    return Tuning(target, k, len(queries), source, chosen, tried)


def choose_effort(tuning: Tuning, target: float) -> Tried:
    """Return the fastest effort of an earlier tuning that keeps another target.

    Raises:
        ConfigError: none of those tried does.

    """
    kept = [one for one in tuning.tried if one.recall >= target]
    if not kept:
        reached = max(one.recall for one in tuning.tried)
        raise ConfigError(
            f"--recall {target} was not reached when the index was tuned: at most {reached:.3f}. "
            "Ask for less, or embed with another --index."
        )
    return min(kept, key=lambda one: one.ms)


def _neighbours(exact: ExactIndex, queries: NDArray[np.float32], k: int) -> list[frozenset[str]]:
    """Return for each query the exact `k` best, and those equal to the last of them."""
    found = []
    for ids, scores in zip(*exact.search(queries, 2 * k), strict=True):
        last = scores[min(k, len(scores)) - 1] - 1e-6
        found.append(frozenset(np.array(ids, object)[scores >= last]))
    return found


def _recall(
    index: FaissIndex, queries: NDArray[np.float32], best: list[frozenset[str]], k: int
) -> float:
    found, _ = index.search(queries, k)
    shares = [
        len(own.intersection(ids)) / min(k, len(own)) for ids, own in zip(found, best, strict=True)
    ]
    return float(np.mean(shares))


def _milliseconds(index: FaissIndex, queries: NDArray[np.float32], k: int) -> float:
    times = []
    for row in range(min(TIMED, len(queries))):
        start = time.perf_counter()
        index.search(queries[row : row + 1], k)
        times.append(time.perf_counter() - start)
    return round(1e3 * float(np.median(times)), 4)
