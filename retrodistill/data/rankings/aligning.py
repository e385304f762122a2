"""The pairs of several runs, each pair once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.base.logging import log
from retrodistill.data.rankings.segments import Floats, Numbers, numbered, per_run
from retrodistill.data.store.lineage import Lineage, joined
from retrodistill.data.store.runs import Run


@dataclass(frozen=True, eq=False, slots=True)
class Aligned:
    """The (query, document) pairs of several runs, each once, sorted by query."""

    query_ids: pa.Array
    """Distinct ids, in order of first appearance."""

    doc_ids: pa.Array
    """Distinct ids, in order of first appearance."""

    queries: Numbers
    """Query number of each pair."""

    docs: Numbers
    """Document number of each pair."""

    rows: Sequence[Numbers]
    """For each run: the pair of each of its rows."""

    owners: Sequence[Numbers]
    """For each run: the query number of each of its rows."""

    scores: Sequence[Floats]
    """For each run: the score of each of its rows."""

    lineage: Lineage
    """What the systems behind the runs were trained on."""

    def __len__(self) -> int:
        return len(self.queries)

    def counts(self) -> Numbers:
        """Return how many runs hold each pair."""
        return np.bincount(np.concatenate(self.rows), minlength=len(self)).astype(np.int64)

    def shared(self) -> "Aligned":
        """Return only the pairs that every run holds; log how many others are dropped.

        Raises:
            DataError: there are none.

        """
        in_all = self.counts() == len(self.rows)
        if not in_all.any():
            raise DataError(
                "the runs share no (query, document) pair. Score the same --candidates with each "
                "teacher."
            )
        queries, docs = self.queries[in_all], self.docs[in_all]
        if dropped := len(self) - len(queries):
            log.info(f"{dropped:,} of {len(self):,} pairs are dropped: not every run scores them.")
        scores = []
        for rows, values in zip(self.rows, self.scores, strict=True):
            table = np.zeros(len(self))
            table[rows] = values
            scores.append(table[in_all])
        runs = len(self.rows)
        return replace(
            self,
            queries=queries,
            docs=docs,
            rows=[np.arange(len(queries))] * runs,
            owners=[queries] * runs,
            scores=scores,
        )

    def run(self, scores: Floats, *, source: str) -> Run:
        """Return the run of these pairs with a score for each."""
        query_ids, doc_ids = self.query_ids.take(self.queries), self.doc_ids.take(self.docs)
        return Run.from_columns(query_ids, doc_ids, scores, source=source, lineage=self.lineage)


def align(runs: Sequence[Run], scores: Sequence[Floats]) -> Aligned:
    """Return the pairs of one or more runs; `scores` are those of each run's rows."""
    # number queries and documents over all runs
    query_ids, queries = numbered(runs, "query_id")
    doc_ids, docs = numbered(runs, "doc_id")
    # a key for each row; equal keys are one pair
    keys = np.concatenate(queries) * len(doc_ids) + np.concatenate(docs)
    pairs, positions = np.unique(keys, return_inverse=True)
    pair_queries, pair_docs = np.divmod(pairs, max(len(doc_ids), 1))
    return Aligned(
        query_ids,
        doc_ids,
        pair_queries,
        pair_docs,
        rows=per_run(positions, runs),
        owners=queries,
        scores=scores,
        lineage=joined(run.lineage for run in runs),
    )
