"""New positives: the document that rankers put first, which need not be the query's source."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.progress import bar
from retrodistill.base.types import Doc, Pairs, Retriever, Teacher
from retrodistill.stages.generating.queries import GeneratedQuery

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

RRF_K = 60.0
"""Constant k of reciprocal rank fusion, 1 / (k + rank)."""


def relabelled(
    queries: Sequence[GeneratedQuery],
    docs: "Texts",
    retriever: Retriever,
    rankers: Sequence[Teacher],
    *,
    k: int,
    forbidden: set[str],
) -> list[GeneratedQuery]:
    """Return the queries with the best of their neighbours as positive, and the worst as negative.

    Neighbours are the source and the best `k` documents of the retriever but the forbidden ones.
    Each ranker orders them, and the sum of reciprocal ranks decides. The source is never the
    negative: the query was written from it. A query that is relevant to several documents, as a
    title is to its passages, stays as it is.

    Source: Lee et al. 2024 (Gecko), arXiv:2403.20327, whose rankers are query likelihood and
    relevance, by a language model.
    """
    single = [query for query in queries if len(query.relevant) == 1]
    neighbours = dict(
        zip(
            (query.id for query in single),
            _neighbours(single, docs, retriever, k, forbidden),
            strict=True,
        )
    )
    single = [query for query in single if len(neighbours[query.id]) > 1]
    if not single:
        return [*queries]
    pairs = [(query, row) for query in single for row in neighbours[query.id]]
    asked = {query.id: Doc(query.id, "", query.text) for query in single}
    read = {row: docs[row] for _, row in pairs}
    batch = Pairs.of([asked[query.id] for query, _ in pairs], [read[row] for _, row in pairs])
    scores = np.stack([ranker.score(batch) for ranker in rankers])  # (rankers, pairs)
    new = {}
    start = 0
    for query in single:
        rows = neighbours[query.id]
        fused = _fused(scores[:, start : start + len(rows)])
        start += len(rows)
        best = int(fused.argmax())
        # The source is the first neighbour; of equally bad ones, the retriever's last is taken.
        others = [place for place in range(len(rows) - 1, 0, -1) if place != best]
        worst = min(others, key=fused.__getitem__, default=None)
        new[query.id] = replace(
            query,
            relevant=(read[rows[best]].id,),
            negatives=() if worst is None else (read[rows[worst]].id,),
        )
    return [new.get(query.id, query) for query in queries]


def _neighbours(
    queries: Sequence[GeneratedQuery],
    docs: "Texts",
    retriever: Retriever,
    k: int,
    forbidden: set[str],
) -> Iterator[list[int]]:
    """Yield the rows of each query's source and of its best documents, each once."""
    sources = docs.rows([query.source for query in queries]).tolist()
    out = set(docs.rows(sorted(forbidden)).tolist())
    with bar("neighbours", len(queries)) as advance:
        hits = retriever.top([query.text for query in queries], k)
        for source, (rows, _) in zip(sources, hits, strict=True):
            advance(1)
            yield list(
                dict.fromkeys([source, *(row for row in rows[:k].tolist() if row not in out)])
            )


def _fused(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the sum of reciprocal ranks of documents, from scores of shape (rankers, documents).

    Equal scores share the better rank, so that a ranker that sees no difference adds none.
    """
    ranks = 1 + (scores[:, None, :] > scores[:, :, None]).sum(-1)
    fused: NDArray[np.float64] = (1.0 / (RRF_K + ranks)).sum(0)
    return fused
