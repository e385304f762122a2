"""Existing scores as a teacher: those of a run or a score store."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Pairs, Reads, Unit
from retrodistill.data.store.form import row_ids
from retrodistill.data.store.runs import Run


class RunTeacher:
    """The scores of a run, by ids: published ones, or an ensemble's."""

    unit: Unit = "pair"
    reads: Reads = "id"

    def __init__(self, run: Run | str, *, scale: str = "unknown") -> None:
        if run == "":
            raise ConfigError("teacher run needs a run folder or file: run:PATH.")
        self.run = Run.read(Path(run)) if isinstance(run, str) else run
        self.scale = scale
        self.lineage = self.run.lineage
        self.fingerprint = self.run.fingerprint
        ids = row_ids(self.run.table)
        self._order = np.argsort(ids)
        self._ids = ids[self._order]

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the run's score of each pair.

        Raises:
            DataError: the run lacks a pair; the first one is named.

        """
        ids = row_ids(pairs.ids())
        positions = np.searchsorted(self._ids, ids).clip(max=max(0, len(self._ids) - 1))
        absent = (
            np.flatnonzero(self._ids[positions] != ids) if len(self._ids) else np.arange(len(ids))
        )
        if len(absent):
            row = int(absent[0])
            query, doc = pairs.queries[pairs.query_rows[row]], pairs.docs[pairs.doc_rows[row]]
            raise DataError(
                f"the run has no score for query {query.id!r} and document {doc.id!r} "
                f"({len(absent):,} of {len(ids):,} pairs are missing). "
                "Give --candidates that it has."
            )
        scores: NDArray[np.float32] = self.run.table["score"].to_numpy()[self._order[positions]]
        return scores
