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

    `search` returns that number of passages; it is asked for more until there are enough documents.
    """
    depth = k
    while True:
        depth *= DEEPER
        ids, scores = search(depth)
        positions = passages_of(ids, k, depth)
        if positions is not None:
            return (
                [
                    [row[position] for position in best]
                    for row, best in zip(ids, positions, strict=True)
                ],
                [row[best] for row, best in zip(scores, positions, strict=True)],
            )


def passages_of(ids: Sequence[Sequence[str]], k: int, depth: int) -> list[NDArray[np.int64]] | None:
    """Return where each list of passages has the best ones of `k` documents.

    None: a list of `depth` passages holds fewer documents, so that a deeper search may find more.
    """
    positions = [first_passages(row, k) for row in ids]
    enough = [len(best) == k or len(row) < depth for best, row in zip(positions, ids, strict=True)]
    return positions if all(enough) else None


def documents(run: Run, k: int) -> Run:
    """Return the run of the `k` best documents of each query, in place of their passages."""
    columns: tuple[list[str], list[str], list[float]] = ([], [], [])
    for query, docs, scores in run.lists():
        positions = first_passages(docs, k)
        columns[0].extend([query] * len(positions))
        columns[1].extend(document_of(docs[position]) for position in positions)
        columns[2].extend(scores[positions].tolist())
    return Run.from_columns(*columns, lineage=run.lineage)


def first_passages(ids: Sequence[str], k: int) -> NDArray[np.int64]:
    """Return the places of the first passages of the first `k` documents."""
    best_row: dict[str, int] = {}
    for position, id in enumerate(ids):
        best_row.setdefault(document_of(id), position)
        if len(best_row) == k:
            break
    return np.array([*best_row.values()], np.int64)
