"""What a student was trained on: the record of its training, with those of its start and teachers.

Its queries are those that were trained on, of any split, labelled or not. Its relevant documents
are what the training took for it: labels, and for a query without any the teacher's best document.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.data.rankings.unseen import unseen_queries
from retrodistill.data.store.lineage import Lineage, Record, joined, model_lineage

if TYPE_CHECKING:
    from retrodistill.base.config import TrainSettings
    from retrodistill.data.datasets import Collection
    from retrodistill.stages.training.candidate_lists import CandidateLists
    from retrodistill.stages.training.development import Development
    from retrodistill.stages.training.material import Material
    from retrodistill.stages.training.sampling import Rows
    from retrodistill.stages.training.sources import SignalSource


def student_lineage(
    material: "Material",
    sources: "Iterable[SignalSource]",
    *,
    name: str,
    start: str | Path,
    settings: "TrainSettings",
) -> Lineage:
    """Return the record of a training, with those of its start and of its sources."""
    records = [_record(material, view, name) for view in material.collection.views_read]
    behind = [model_lineage(start)]
    if settings.doc_student is not None:
        behind.append(model_lineage(settings.doc_student))
    behind += [source.lineage for source in sources]
    return joined([Lineage(tuple(records)), *behind])


def _record(material: "Material", view: "Collection", name: str) -> Record:
    """Return the record of what was trained on, in the texts of one view."""
    queries = view.queries.full_texts(material.queries)
    relevant: list[list[str]] = [[] for _ in queries]  # none where texts have no lists
    if material.lists is not None:
        rows, lists = _relevant(material.lists)
        texts = view.docs.full_texts(rows)
        relevant = [[texts[position] for position in positions] for positions in lists]
    return Record.of(queries, relevant, collection=view.name, split=material.split, student=name)


def _relevant(lists: "CandidateLists") -> "tuple[Rows, list[Rows]]":
    """Return the distinct relevant documents, and each query's positions among them."""
    relevant = [
        np.union1d(lists.relevant[index], lists.positives[index]).astype(np.int64)
        for index in range(len(lists))
    ]
    rows, positions = np.unique(np.concatenate(relevant), return_inverse=True)
    bounds = np.cumsum([len(docs) for docs in relevant])[:-1]
    return rows, np.split(positions, bounds)


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
