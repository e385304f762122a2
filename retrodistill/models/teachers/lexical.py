"""BM25 as a teacher: exact words, for an ensemble with a dense model."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Pairs, Unit
from retrodistill.models.retrievers.bm25 import K1, B, Lexicon

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


class BM25Teacher:
    """BM25 scores with the statistics of the collection; 0 where no word is shared.

    Every document counts for every score: with a changed collection it is another teacher.
    """

    scale = "bm25"
    unit: Unit = "pair"

    def __init__(self, argument: str, collection: "Collection") -> None:
        if argument:
            raise ConfigError(f"teacher bm25 takes no argument, but got {argument!r}.")
        self._docs = collection.docs
        self._lexicon = Lexicon(doc.full_text for doc in collection.docs)
        self.fingerprint = digest("bm25", str(K1), str(B), collection.docs.fingerprint)

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the BM25 score of each document for its query."""
        rows = self._docs.rows([doc.id for doc in pairs.docs])[pairs.doc_rows]
        scores = np.empty(len(pairs), np.float32)
        for query, positions in pairs.by_query():
            scores[positions] = self._lexicon.scores(query.full_text)[rows[positions]]
        return scores
