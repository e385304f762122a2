"""Lucene's BM25 as a teacher: the baseline that papers report, score by score."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.types import Pairs, Unit
from retrodistill.models.retrievers.lucene import K1, B, LuceneIndex

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


class LuceneTeacher:
    """BM25 scores of a Lucene index of the collection; 0 where no word is shared.

    The argument is the language of the analyser: `lucene:de`, English by default.
    """

    scale = "bm25"
    unit: Unit = "pair"

    def __init__(
        self, language: str, collection: "Collection", *, k1: float = K1, b: float = B
    ) -> None:
        docs = collection.docs
        self._rows = docs.rows
        self._index = LuceneIndex(docs, docs.fingerprint, language=language or "en", k1=k1, b=b)
        self.fingerprint = self._index.fingerprint

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the BM25 score of each document for its query."""
        rows = self._rows([doc.id for doc in pairs.docs])[pairs.doc_rows]
        scores = np.empty(len(pairs), np.float32)
        for query, positions in pairs.by_query():
            scores[positions] = self._index.scores(query.full_text, rows[positions])
        return scores
