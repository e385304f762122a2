"""Judged queries that a training has not seen: without a near double, or by their documents."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.types import Qrels
from retrodistill.data.rankings.doubles import Sets, most_alike
from retrodistill.data.store.lineage import Record
from retrodistill.data.store.words import text_key, word_hashes

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

NO_DOUBLE = "no near double in training"
UNSEEN = "documents unseen in training"

THRESHOLD = 0.6
"""Least Jaccard similarity of the words of two queries that are near doubles."""


def unseen_queries(
    collection: "Collection",
    qrels: Qrels,
    records: Sequence[Record],
    *,
    threshold: float = THRESHOLD,
) -> dict[str, list[str]]:
    """Return NO_DOUBLE and UNSEEN with their judged queries, in the order of the judgements.

    A query has a near double if the Jaccard similarity of its words with those of a training query
    reaches the threshold. Its documents are seen if the text of one that is relevant to it was
    relevant in training. A query whose text the collection does not hold is in neither.
    """
    judged = [query for query, docs in qrels.items() if docs]
    rows = collection.queries.find(judged)
    known = [query for query, row in zip(judged, rows, strict=True) if row >= 0]
    words = [word_hashes(text) for text in collection.queries.full_texts(rows[rows >= 0])]
    similarity = nearest_similarity(words, records, least=threshold)
    seen = _seen_documents(collection, qrels, known, records)
    return {
        NO_DOUBLE: [q for q, s in zip(known, similarity, strict=True) if s < threshold],
        UNSEEN: [query for query in known if query not in seen],
    }


def nearest_similarity(
    words: Sequence[NDArray[np.uint64]], records: Sequence[Record], *, least: float = 0.0
) -> NDArray[np.float64]:
    """Return each query's highest Jaccard similarity with a query of the records, exactly.

    Queries are given as the hashes of their distinct words. 0 where none reaches `least`.
    """
    columns = [record.table["words"].combine_chunks() for record in records]
    known = [
        Sets(
            column.flatten().to_numpy(zero_copy_only=False),
            column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64),
        )
        for column in columns
    ]
    return most_alike(Sets.of(words), known, least=least)[0]


def _seen_documents(
    collection: "Collection", qrels: Qrels, queries: Sequence[str], records: Sequence[Record]
) -> set[str]:
    """Return the queries with a relevant document whose text a training called relevant."""
    relevant = {
        query: [doc for doc, grade in qrels[query].items() if grade > 0] for query in queries
    }
    ids = list(dict.fromkeys(doc for docs in relevant.values() for doc in docs))
    rows = collection.docs.find(ids)
    texts = collection.docs.full_texts(rows[rows >= 0])
    known = [doc for doc, row in zip(ids, rows, strict=True) if row >= 0]
    keys = np.array([text_key(text) for text in texts], np.uint64)
    trained = np.concatenate(
        [record.table["relevant"].combine_chunks().flatten().to_numpy() for record in records]
    )
    seen = {doc for doc, hit in zip(known, np.isin(keys, trained), strict=True) if hit}
    return {query for query, docs in relevant.items() if seen.intersection(docs)}
