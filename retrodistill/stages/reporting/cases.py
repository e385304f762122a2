"""Single queries and single scores of two systems, for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from retrodistill.base.types import Doc, Qrels
from retrodistill.stages.reporting.content import Case, ListedDocument

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts
    from retrodistill.data.store.runs import Run

EXCERPT = 220
"""Characters shown of a document; twice as many of a query."""

MISSED = 5
"""Most relevant documents of a query that are listed as missed."""

SAMPLED_QUERIES = 300
RELEVANT, OTHER = 500, 1500
"""Most points of a scatter plot: of pairs judged relevant, and of all others."""

Points = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseLimits:
    """How much a report shows of single queries."""

    queries: int = 25
    depth: int = 10
    """Documents of each list."""


def worst_cases(
    values: Mapping[str, Mapping[str, float]],
    runs: "Mapping[str, Run]",
    qrels: Qrels,
    *,
    metric: str,
    systems: tuple[str, str],
    collection: "Collection | None" = None,
    limits: CaseLimits = CaseLimits(),
    tie: float = 1e-9,
) -> tuple[list[Case], int]:
    """Return the queries that lost most from the first system to the second, and how many lost.

    `values` is system -> query id -> value of `metric`. Equal losses are in the order of the
    judgements.
    """
    # the queries with the largest losses
    before, after = (values[name] for name in systems)
    lost = [query for query in before if after[query] < before[query] - tie]
    queries = sorted(lost, key=lambda query: after[query] - before[query])[: limits.queries]
    # both lists of each, and the texts of what is shown
    lists = [_lists(runs[name], queries) for name in systems]
    ids = {doc for by_query in lists for docs in by_query.values() for doc in docs[: limits.depth]}
    ids |= {doc for query in queries for doc, grade in qrels[query].items() if grade > 0}
    docs = _texts(collection.docs if collection else None, sorted(ids))
    texts = _texts(collection.queries if collection else None, queries)
    cases = []
    for query in queries:
        ranks = [
            {doc: rank for rank, doc in enumerate(by_query.get(query, ()), start=1)}
            for by_query in lists
        ]
        tops = [by_query.get(query, [])[: limits.depth] for by_query in lists]
        relevant = [doc for doc, grade in qrels[query].items() if grade > 0]
        missed = [doc for doc in relevant if doc not in tops[1]][:MISSED]
        hits = partial(_hits, docs=docs, grades=qrels[query])
        cases.append(
            Case(
                query=query,
                text=_excerpt(texts[query].text, 2 * EXCERPT) if query in texts else "",
                metric=metric,
                systems=systems,
                values=(before[query], after[query]),
                lists=(hits(tops[0], *ranks), hits(tops[1], *ranks[::-1])),
                missed=hits(missed, *ranks[::-1]),
            )
        )
    return cases, len(lost)


def score_points(
    student: "Run", teacher: "Run", qrels: Qrels, *, seed: int = 0
) -> tuple[Points, Points]:
    """Return (teacher's score, student's score) of pairs: those judged relevant, and others.

    The pairs are a random sample of those that both scored, of a random sample of queries.
    """
    generator = np.random.default_rng(seed)
    # a sample of queries
    queries = np.array([query for query in teacher.query_ids if query in qrels], object)
    queries = generator.permutation(queries)[:SAMPLED_QUERIES]
    # all pairs of these that both scored
    student_scores = student.select(queries.tolist()).to_dict()
    groups: tuple[Points, Points] = ([], [])  # judged relevant, others
    for query, scores in teacher.select(queries.tolist()).to_dict().items():
        for doc, score in scores.items():
            student_score = student_scores.get(query, {}).get(doc)
            if student_score is not None:
                is_other = qrels[query].get(doc, 0) <= 0
                groups[is_other].append((score, student_score))
    # a sample of either group
    relevant, irrelevant = (
        [points[row] for row in np.sort(generator.permutation(len(points))[:most])]
        for points, most in zip(groups, (RELEVANT, OTHER), strict=True)
    )
    return relevant, irrelevant


def _hits(
    ids: Sequence[str],
    ranks: Mapping[str, int],
    beside: Mapping[str, int],
    *,
    docs: Mapping[str, Doc],
    grades: Mapping[str, int],
) -> list[ListedDocument]:
    """Return documents of a list, with what is shown of them."""
    texts = [docs.get(id, Doc(id, "", "")) for id in ids]
    return [
        ListedDocument(
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


def _texts(texts: "Texts | None", ids: Sequence[str]) -> dict[str, Doc]:
    """Return the texts of the ids that exist."""
    if texts is None or not ids:
        return {}
    rows = texts.find(ids)
    return {id: texts[int(row)] for id, row in zip(ids, rows, strict=True) if row >= 0}


def _excerpt(text: str, most: int = EXCERPT) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
