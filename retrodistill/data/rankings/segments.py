"""Candidate lists as stretches of long columns, so that all of them are treated at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.data.store.runs import Run

Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.int64]

FROZEN = 800.0
"""Gap of logits from which on a candidate has no mass in float64."""


@dataclass(frozen=True, eq=False, slots=True)
class Segments:
    """Where the candidates of each query stand: rows `starts[i]` to `starts[i] + lengths[i]`."""

    starts: Numbers
    lengths: Numbers

    @classmethod
    def of(cls, owners: NDArray[np.integer]) -> "Segments":
        """Return the lists of a column of query numbers, each query's rows standing together."""
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        return cls(starts, np.diff(starts, append=len(owners)))

    def __len__(self) -> int:
        return len(self.starts)

    def spread(self, values: Floats | Numbers) -> Floats:
        """Return each list's value once for each of its rows."""
        return np.repeat(values, self.lengths)

    def sums(self, values: Floats) -> Floats:
        """Return the sum of each list's values."""
        return np.add.reduceat(values, self.starts, dtype=np.float64)

    def highest(self, values: Floats | Numbers) -> Floats:
        """Return the highest of each list's values."""
        highest: Floats = np.maximum.reduceat(values, self.starts)
        return highest

    def ranks(self) -> Floats:
        """Return each row's place in its list, from 1."""
        return np.arange(1, self.lengths.sum() + 1) - self.spread(self.starts)

    def standardised(self, values: Floats) -> Floats:
        """Return each list's values with mean 0 and deviation 1; equal values become 0."""
        gaps = values - self.spread(self.sums(values) / self.lengths)
        deviations = np.sqrt(self.sums(gaps**2) / self.lengths)
        flat = self.highest(values) == -self.highest(-values)
        return gaps / self.spread(np.where(flat, np.inf, deviations))

    def entropy(self, scores: Floats, temperature: float = 1.0) -> Floats:
        """Return the entropy, in nats, of each list's softmax(scores / temperature)."""
        with np.errstate(over="ignore"):
            logits = (scores - self.spread(self.highest(scores))) / temperature
        logits = np.maximum(logits, -FROZEN)
        masses = np.exp(logits)
        totals = self.sums(masses)
        return np.log(totals) - self.sums(masses * logits) / totals


def numbered(runs: Sequence[Run], name: str) -> tuple[pa.Array, list[Numbers]]:
    """Return a column's distinct ids in order of appearance, and each run's column as numbers."""
    chunks = [chunk for run in runs for chunk in run.table[name].chunks]
    wide = any(pa.types.is_large_string(chunk.type) for chunk in chunks)
    kind = pa.large_string() if wide else pa.string()
    column = pa.chunked_array([chunk.cast(kind) for chunk in chunks], kind)
    parts = column.dictionary_encode().unify_dictionaries().chunks
    ids = parts[-1].dictionary if parts else pa.array([], pa.string())
    codes = [np.empty(0, np.int64), *(part.indices.to_numpy() for part in parts)]
    return ids, per_run(np.concatenate(codes), runs)


def per_run(rows: Numbers, runs: Sequence[Run]) -> list[Numbers]:
    """Return a column of all runs' rows, cut into one for each run."""
    return np.split(rows, np.cumsum([len(run) for run in runs[:-1]], dtype=np.int64))


def scores_of(run: Run) -> Floats:
    """Return a run's scores as float64."""
    scores: Floats = run.table["score"].to_numpy().astype(np.float64)
    return scores
