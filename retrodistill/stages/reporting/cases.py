"""Single queries and single scores of two systems, side by side."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from retrodistill.base.types import Doc, Qrels
from retrodistill.stages.reporting.content import Case, Hit

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts
    from retrodistill.data.store.runs import Run

EXCERPT = 220
"""Characters of a document that are shown; of a query, twice as many."""

MISSED = 5
"""Relevant documents of a query that are shown apart."""

SAMPLED_QUERIES = 300
RELEVANT, OTHER = 500, 1500
"""Points of a scatter at most, of pairs judged relevant and of all others."""

Points = list[tuple[float, float]]


def worst_cases(
    values: Mapping[str, Mapping[str, float]],
    runs: "Mapping[str, Run]",
    qrels: Qrels,
    *,
    metric: str,
    systems: tuple[str, str],
    collection: "Collection | None" = None,
    most: int = 25,
    depth: int = 10,
    tie: float = 1e-9,
) -> tuple[list[Case], int]:
    """Return the queries that lost most from the first system to the second, and how many lost.

    `values` is system -> query id -> value of `metric`. Equal losses stand in the order of the
    judgements.
    """
    first, second = (values[name] for name in systems)
    lost = [query for query in first if second[query] < first[query] - tie]
    chosen = sorted(lost, key=lambda query: second[query] - first[query])[:most]
    lists = [_lists(runs[name], chosen) for name in systems]
    shown = {doc for side in lists for docs in side.values() for doc in docs[:depth]}
    shown |= {doc for query in chosen for doc, grade in qrels[query].items() if grade > 0}
    docs = _found(collection.docs if collection else None, sorted(shown))
    texts = _found(collection.queries if collection else None, chosen)
    cases = []
    for query in chosen:
        ranks = [
            {doc: rank for rank, doc in enumerate(side.get(query, ()), start=1)} for side in lists
        ]
        tops = [side.get(query, [])[:depth] for side in lists]
        relevant = [doc for doc, grade in qrels[query].items() if grade > 0]
        missed = [doc for doc in relevant if doc not in tops[1]][:MISSED]
        hits = partial(_hits, docs=docs, grades=qrels[query])
        cases.append(
            Case(
                query=query,
                text=_excerpt(texts[query].text, 2 * EXCERPT) if query in texts else "",
                metric=metric,
                systems=systems,
                values=(first[query], second[query]),
                lists=(hits(tops[0], *ranks), hits(tops[1], *ranks[::-1])),
                missed=hits(missed, *ranks[::-1]),
            )
        )
    return cases, len(lost)


def score_points(
    student: "Run", teacher: "Run", qrels: Qrels, *, seed: int = 0
) -> tuple[Points, Points]:
    """Return (teacher's score, student's score) of pairs: judged relevant ones, and others.

    The pairs are drawn at random from those that both scored, of random queries.
    """
    generator = np.random.default_rng(seed)
    queries = np.array([query for query in teacher.query_ids if query in qrels], object)
    queries = generator.permutation(queries)[:SAMPLED_QUERIES]
    ours = student.select(queries.tolist()).to_dict()
    kinds: tuple[Points, Points] = ([], [])
    for query, scores in teacher.select(queries.tolist()).to_dict().items():
        for doc, score in scores.items():
            own = ours.get(query, {}).get(doc)
            if own is not None:
                kinds[qrels[query].get(doc, 0) <= 0].append((score, own))
    relevant, other = (
        [points[place] for place in np.sort(generator.permutation(len(points))[:most])]
        for points, most in zip(kinds, (RELEVANT, OTHER), strict=True)
    )
    return relevant, other


def _hits(
    ids: Sequence[str],
    ranks: Mapping[str, int],
    beside: Mapping[str, int],
    *,
    docs: Mapping[str, Doc],
    grades: Mapping[str, int],
) -> list[Hit]:
    """Return documents of a list, as they are to be shown."""
    texts = [docs.get(id, Doc(id, "", "")) for id in ids]
    return [
        Hit(
            id=doc.id,
            title=_excerpt(doc.title),
            text=_excerpt(doc.text),
            grade=grades.get(doc.id),
            rank=ranks.get(doc.id),
            other=beside.get(doc.id),
        )
        for doc in texts
    ]


def _lists(run: "Run", queries: Sequence[str]) -> dict[str, list[str]]:
    return {query: docs for query, docs, _ in run.select(queries).lists()}


def _found(texts: "Texts | None", ids: Sequence[str]) -> dict[str, Doc]:
    """Return the texts of those ids that there are."""
    if texts is None or not ids:
        return {}
    rows = texts.find(ids)
    return {id: texts[int(row)] for id, row in zip(ids, rows, strict=True) if row >= 0}


def _excerpt(text: str, most: int = EXCERPT) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
