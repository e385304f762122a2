"""A first stage's lists in the order of a second one."""

from collections.abc import Mapping, Sequence

import numpy as np

from retrodistill.data.store.runs import Run


def reranked(first: Run, scores: Run) -> Run:
    """Return `first` with the documents that `scores` knows in front, in the order of `scores`.

    The others follow in their old order, below the lowest of the scores.
    """
    known = scores.to_dict()
    lists: dict[str, dict[str, float]] = {}
    for query, docs, _ in first.lists():
        front = known.get(query, {})
        lists[query] = front | below(front, [doc for doc in docs if doc not in front])
    return Run.from_dict(lists, lineage=first.lineage | scores.lineage)


def below(scores: Mapping[str, float], docs: Sequence[str]) -> dict[str, float]:
    """Return scores that put these documents, in their order, just below the lowest score."""
    lowest = np.float32(min(scores.values(), default=0.0))
    placed = {}
    for doc in docs:
        lowest = np.nextafter(lowest, np.float32(-np.inf))
        placed[doc] = float(lowest)
    return placed
