"""The candidates of all queries in columns, so that half a million are gathered in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.stages.training.sampling import Floats, Rows


@dataclass(frozen=True, slots=True)
class QueryCandidates:
    """The candidates of one query, as document rows of the collection."""

    query: int
    positives: Rows
    """Documents to draw positives from; with teacher scores, only those that have one."""
    pool: Rows
    """Other candidates, best teacher score first; without scores those judged not relevant."""
    positive_scores: NDArray[np.float32]
    pool_scores: NDArray[np.float32]
    relevant: frozenset[int]
    """Every relevant document, scored or not: never a negative."""
    doubtful: frozenset[int]
    """Documents that score too high with the teacher to be called negatives."""


@dataclass(frozen=True, eq=False, slots=True)
class Ragged:
    """Lists of different lengths: list i is `values[bounds[i] : bounds[i + 1]]`."""

    values: NDArray[Any]
    bounds: Rows

    @classmethod
    def of(cls, owners: NDArray[np.integer], values: NDArray[Any], count: int) -> "Ragged":
        """Return the lists of `count` owners, whose values are sorted by owner."""
        ends = np.cumsum(np.bincount(owners, minlength=count))
        return cls(values, np.concatenate([np.zeros(1, np.int64), ends]))

    def select(self, chosen: NDArray[np.bool_]) -> "Ragged":
        """Return the lists of some owners."""
        sizes = np.diff(self.bounds)
        count = int(chosen.sum())
        owners = np.repeat(np.arange(count), sizes[chosen])
        return Ragged.of(owners, self.values[np.repeat(chosen, sizes)], count)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.values[self.bounds[index] : self.bounds[index + 1]]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CandidateLists(Sequence[QueryCandidates]):
    """The candidates of all queries, in columns; an item is made on access."""

    queries: Rows
    positives: Ragged
    pool: Ragged
    positive_scores: Ragged
    pool_scores: Ragged
    relevant: Ragged
    doubtful: Ragged
    scored: bool
    """Whether there is a teacher; if not, pools are what is judged not relevant."""

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> QueryCandidates:  # type: ignore[override]
        index = range(len(self))[index]
        return QueryCandidates(
            int(self.queries[index]),
            self.positives[index],
            self.pool[index],
            self.positive_scores[index],
            self.pool_scores[index],
            frozenset(self.relevant[index].tolist()),
            frozenset(self.doubtful[index].tolist()),
        )

    def select(self, chosen: NDArray[np.bool_]) -> "CandidateLists":
        """Return the candidates of some of the queries."""
        columns = ("positives", "pool", "positive_scores", "pool_scores", "relevant", "doubtful")
        lists = {name: getattr(self, name).select(chosen) for name in columns}
        return replace(self, queries=self.queries[chosen], **lists)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Return which queries have a relevant document."""
        return np.diff(self.relevant.bounds) > 0

    @property
    def margins(self) -> Floats:
        """Return each query's best positive score less its best other one; 0 without a teacher."""
        if not self.scored:
            return np.zeros(len(self))
        best, negative = (
            lists.values[lists.bounds[:-1]].astype(np.float64)
            for lists in (self.positive_scores, self.pool_scores)
        )
        return best - negative
