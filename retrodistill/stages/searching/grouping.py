"""Results by document: each document once, by its best passage.

A passage is named DOCUMENT#NUMBER, as those of `docs:PATH` are; another id is a document of its
own. The score of a document is the best of its passages' (MaxP).

Source: Dai and Callan 2019, "Deeper Text Understanding for IR with Contextual Neural Language
Modeling", arXiv:1905.09217.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from retrodistill.data.store.runs import Run

Found = tuple[list[list[str]], list[NDArray[np.float32]]]
"""For each query its best ids and their scores, best first."""

DEEPER = 4
"""Passages asked for where one document is wanted, and again where these were too few."""


def document_of(id: str) -> str:
    """Return the document of a passage: what is before the last `#` if a number follows it."""
    document, mark, number = id.rpartition("#")
    return document if mark and number.isdecimal() and document else id


def best_passages(search: Callable[[int], Found], k: int) -> Found:
    """Return the best passage of each of the `k` best documents of each query.

    `search` returns so many passages; it is asked for more until there are enough documents.
    """
    depth = k
    while True:
        depth *= DEEPER
        ids, scores = search(depth)
        places = [first_passages(row, k) for row in ids]
        if all(len(own) == k or len(row) < depth for own, row in zip(places, ids, strict=True)):
            return (
                [[row[place] for place in own] for row, own in zip(ids, places, strict=True)],
                [row[own] for row, own in zip(scores, places, strict=True)],
            )


def documents(run: Run, k: int) -> Run:
    """Return the run of the `k` best documents of each query, in place of their passages."""
    columns: tuple[list[str], list[str], list[float]] = ([], [], [])
    for query, docs, scores in run.lists():
        places = first_passages(docs, k)
        columns[0].extend([query] * len(places))
        columns[1].extend(document_of(docs[place]) for place in places)
        columns[2].extend(scores[places].tolist())
    return Run.from_columns(*columns, lineage=run.lineage)


def first_passages(ids: Sequence[str], k: int) -> NDArray[np.int64]:
    """Return the places of the first passages of the first `k` documents."""
    first: dict[str, int] = {}
    for place, id in enumerate(ids):
        first.setdefault(document_of(id), place)
        if len(first) == k:
            break
    return np.array([*first.values()], np.int64)
