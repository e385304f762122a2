"""The rows of several runs, brought together pair by pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrodistill.data.rankings.lists import Floats, Numbers, numbered, per_run
from retrodistill.data.store.lineage import Lineage, joined
from retrodistill.data.store.runs import Run


@dataclass(frozen=True, eq=False, slots=True)
class Aligned:
    """The pairs that any of several runs holds, each once, query by query."""

    query_ids: pa.Array
    """Distinct ids, in order of first appearance."""

    doc_ids: pa.Array
    """Distinct ids, in order of first appearance."""

    queries: Numbers
    """Number of each pair's query."""

    docs: Numbers
    """Number of each pair's document."""

    rows: Sequence[Numbers]
    """For each run: which pair each of its rows is."""

    owners: Sequence[Numbers]
    """For each run: number of each row's query."""

    lineage: Lineage
    """What the systems behind the runs were trained on."""

    def __len__(self) -> int:
        return len(self.queries)

    def counts(self) -> Numbers:
        """Return how many runs hold each pair."""
        return np.bincount(np.concatenate(self.rows), minlength=len(self)).astype(np.int64)

    def run(self, scores: Floats, *, source: str) -> Run:
        """Return the run of these pairs with a score for each."""
        query_ids, doc_ids = self.query_ids.take(self.queries), self.doc_ids.take(self.docs)
        return Run.from_columns(query_ids, doc_ids, scores, source=source, lineage=self.lineage)


def align(runs: Sequence[Run]) -> Aligned:
    """Return the pairs of one or more runs."""
    query_ids, queries = numbered(runs, "query_id")
    doc_ids, docs = numbered(runs, "doc_id")
    keys = np.concatenate(queries) * len(doc_ids) + np.concatenate(docs)
    pairs, places = np.unique(keys, return_inverse=True)
    owners, numbers = np.divmod(pairs, max(len(doc_ids), 1))
    lineage = joined(run.lineage for run in runs)
    return Aligned(query_ids, doc_ids, owners, numbers, per_run(places, runs), queries, lineage)
