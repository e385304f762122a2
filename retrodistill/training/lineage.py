"""What a student has learned from when its training is done: a record of this and all others.

The queries are those that were trained on, whatever split judges them and whether they are
labelled; relevant is what the training took for it: labels, and of a query without any the
teacher's best document.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.arithmetic.unseen import unseen_queries
from retrodistill.store.lineage import Lineage, Record, joined, model_lineage, own_lineage

if TYPE_CHECKING:
    from retrodistill.config import TrainSettings
    from retrodistill.datasets import Collection
    from retrodistill.store.runs import Run
    from retrodistill.store.scores import PreferenceStore
    from retrodistill.training.development import Development
    from retrodistill.training.examples import CandidateLists
    from retrodistill.types import Encoder


def student_lineage(
    collection: "Collection",
    candidates: "CandidateLists",
    *,
    split: str,
    name: str,
    start: str | Path,
    settings: "TrainSettings",
    scores: "Run | None" = None,
    preferences: "PreferenceStore | None" = None,
    vectors: "Encoder | None" = None,
) -> Lineage:
    """Return the record of a training, with those of its start and of its teachers."""
    queries = collection.queries.full_texts(candidates.queries)
    lists = [
        np.union1d(candidates.relevant[place], candidates.positives[place]).astype(np.int64)
        for place in range(len(candidates))
    ]
    rows, places = np.unique(np.concatenate(lists), return_inverse=True)
    texts = collection.docs.full_texts(rows)
    bounds = np.cumsum([len(own) for own in lists])[:-1]
    relevant = [[texts[place] for place in own] for own in np.split(places, bounds)]
    record = Record.of(queries, relevant, collection=collection.name, split=split, student=name)
    sources = [model_lineage(start)]
    if settings.doc_student is not None:
        sources.append(model_lineage(settings.doc_student))
    if scores is not None:
        sources.append(scores.lineage)
    if preferences is not None:
        sources.append(own_lineage(preferences))
    if vectors is not None:
        sources.append(own_lineage(vectors))
    return joined([Lineage((record,)), *sources])


def unseen_values(
    development: "Development", model: Any, collection: "Collection", lineage: Lineage
) -> list[dict[str, Any]]:
    """Return the dev metric of the finished student on the queries that training has not seen.

    Each row has a name, a number of queries, and the mean: None of no query.
    """
    values = development.values(model)
    subsets = unseen_queries(collection, development.qrels, lineage.records)
    return [
        {
            "name": name,
            "queries": len(queries),
            "value": sum(values[query] for query in queries) / len(queries) if queries else None,
        }
        for name, queries in subsets.items()
    ]
