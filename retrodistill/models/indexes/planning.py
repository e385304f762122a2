"""How a search with a condition goes: which queries share one, and what is cheapest for it.

An approximate index walks past documents that do not fit, so the fewer fit, the longer it walks
for `k` of them; comparing the ones that fit one by one gets cheaper at the same time. The plan is
the cheaper of both, counted in inner products.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import DataError

if TYPE_CHECKING:
    from retrodistill.data.filters import Expression

Condition: TypeAlias = "str | Expression | None"
Where: TypeAlias = "Condition | Sequence[Condition]"

SHARED = 8.0
"""How much cheaper an inner product is in a product of two matrices than alone."""
MANY = 16
"""Queries from which a scan is such a product."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How documents that fit a condition are found."""

    how: Literal["scan", "search", "nothing"]
    """Compare each one that fits; search the whole structure; or there is none that fits."""

    matches: int
    total: int

    @property
    def selectivity(self) -> float:
        """The share of documents that fit."""
        return self.matches / self.total if self.total else 0.0

    def __str__(self) -> str:
        """Return the plan in words."""
        share = f"{self.matches:,} of {self.total:,} documents fit ({self.selectivity:.2%})"
        ways = {
            "scan": "each of them is compared",
            "search": "the index is searched",
            "nothing": "there is nothing to search",
        }
        return f"{share}: {ways[self.how]}"


def grouped(where: Where, queries: int) -> Iterator[tuple["Expression | None", NDArray[np.int64]]]:
    """Yield each distinct condition and the queries that have it.

    Raises:
        ConfigError: a condition cannot be read.
        DataError: a sequence has another number of conditions than there are queries.

    """
    if where is None or isinstance(where, str) or not isinstance(where, Sequence):
        yield _parsed(where), np.arange(queries)
        return
    if len(where) != queries:
        raise DataError(f"{queries} queries came with {len(where)} conditions: give one each.")
    asked: dict[Condition, list[int]] = {}
    for place, condition in enumerate(where):
        asked.setdefault(condition, []).append(place)
    places: dict[Expression | None, list[int]] = {}
    for condition, own in asked.items():  # two texts may say the same
        places.setdefault(_parsed(condition), []).extend(own)
    for expression, own in places.items():
        yield expression, np.array(own, np.int64)


def choose(matches: int, total: int, queries: int, walk: float) -> Plan:
    """Return the cheaper plan; `walk`: inner products of a search without a condition."""
    scan = matches / (SHARED if queries >= MANY else 1.0)
    searched = min(walk * total / max(1, matches), total)
    return Plan("scan" if scan <= searched else "search", matches, total)


def _parsed(condition: Condition) -> "Expression | None":
    if not isinstance(condition, str):
        return condition
    from retrodistill.data.filters import parse_where

    return parse_where(condition)
