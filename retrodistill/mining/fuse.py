"""What is done to candidate lists: labelled positives in or out, false negatives out."""

from collections.abc import Mapping
from dataclasses import dataclass

from retrodistill.arithmetic.reranking import below
from retrodistill.errors import DataError
from retrodistill.store.runs import Run


@dataclass(frozen=True, slots=True)
class Treated:
    """A run after a step, and how many rows the step dropped or added."""

    run: Run
    rows: int


def drop_positives(run: Run, relevant: Mapping[str, frozenset[str]]) -> Treated:
    """Return the run without documents that are labelled relevant."""
    kept = {
        query: {
            doc: float(score)
            for doc, score in zip(docs, scores, strict=True)
            if doc not in relevant.get(query, frozenset())
        }
        for query, docs, scores in run.lists()
    }
    treated = Run.from_dict(kept, lineage=run.lineage)
    return Treated(treated, len(run) - len(treated))


def add_positives(run: Run, relevant: Mapping[str, frozenset[str]]) -> Treated:
    """Return the run with every labelled document in it, missing ones at the end of the list."""
    lists = run.to_dict()
    added = 0
    for query, docs in relevant.items():
        scores = lists.setdefault(query, {})
        missing = sorted(docs - scores.keys(), reverse=True)
        scores.update(below(scores, missing))
        added += len(missing)
    return Treated(Run.from_dict(lists, lineage=run.lineage), added)


def drop_false_negatives(
    run: Run, relevant: Mapping[str, frozenset[str]], *, ratio: float
) -> Treated:
    """Return the run without unlabelled documents above `ratio` times the best positive's score.

    Such documents are probably relevant without a label. Queries whose positives are not in the
    run stay as they are.

    Raises:
        DataError: scores are negative, where a share of the best means nothing.

    """
    kept: dict[str, dict[str, float]] = {}
    for query, docs, scores in run.lists():
        if len(scores) and scores.min() < 0:
            raise DataError(
                f"query {query!r} has negative scores, so a share of the positive's score means "
                "nothing. Use one retriever of positive scores, such as bm25."
            )
        known = relevant.get(query, frozenset())
        best = max(
            (float(s) for d, s in zip(docs, scores, strict=True) if d in known), default=None
        )
        kept[query] = {
            doc: float(score)
            for doc, score in zip(docs, scores, strict=True)
            if best is None or doc in known or score <= ratio * best
        }
    treated = Run.from_dict(kept, lineage=run.lineage)
    return Treated(treated, len(run) - len(treated))
