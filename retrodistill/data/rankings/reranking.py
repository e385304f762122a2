"""A first stage's lists in the order of a second one."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.data.rankings.segments import numbered
from retrodistill.data.store.runs import Run


def reranked(first: Run, scores: Run) -> Run:
    """Return `first` with the documents that `scores` knows in front, in the order of `scores`.

    The others follow in their old order, below the lowest of the scores.
    """

    def lists() -> Iterator[tuple[str, list[str], NDArray[np.float32]]]:
        for query, docs, _ in first.lists():
            front_docs, front_scores = scores.list_of(query)
            front = dict(zip(front_docs, front_scores.tolist(), strict=True))
            rest = below(front, [doc for doc in docs if doc not in front])
            values = np.array([*front.values(), *rest.values()], np.float32)
            yield query, [*front, *rest], values

    return Run.from_lists(lists(), lineage=first.lineage | scores.lineage)


def below(scores: Mapping[str, float], docs: Sequence[str]) -> dict[str, float]:
    """Return scores that put these documents, in their order, just below the lowest score."""
    lowest = np.float32(min(scores.values(), default=0.0))
    placed = {}
    for doc in docs:
        lowest = np.nextafter(lowest, np.float32(-np.inf))
        placed[doc] = float(lowest)
    return placed


def scores_for(pairs: Run, scores: Run) -> NDArray[np.float32]:
    """Return the score of each row of `pairs`, which `scores` has among others.

    Raises:
        DataError: it lacks one.

    """
    _, (pair_queries, queries) = numbered([pairs, scores], "query_id")
    doc_ids, (pair_docs, docs) = numbered([pairs, scores], "doc_id")
    keys = queries * len(doc_ids) + docs
    requested = pair_queries * len(doc_ids) + pair_docs
    absent = np.flatnonzero(~np.isin(requested, keys))
    if len(absent):
        row = pairs.table.slice(int(absent[0]), 1).to_pylist()[0]
        raise DataError(
            f"query {row['query_id']!r} has no score of document {row['doc_id']!r} "
            f"({len(absent):,} of {len(pairs):,} pairs have none). Score these candidates first."
        )
    order = np.argsort(keys)
    rows = order[np.searchsorted(keys, requested, sorter=order)]
    values: NDArray[np.float32] = scores.table["score"].to_numpy()[rows]
    return values
