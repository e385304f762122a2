"""Bi-encoder teachers: inner products of vectors, each document encoded once."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.config import Precision
from retrodistill.errors import ConfigError
from retrodistill.types import Pairs, Unit

if TYPE_CHECKING:
    from retrodistill.datasets import Collection


class BiEncoderTeacher:
    """Inner products of a sentence-transformers model's vectors.

    The whole collection is encoded at the first call (and kept in the cache), so that a score
    never depends on which other pairs are asked for.
    """

    unit: Unit = "pair"

    def __init__(
        self,
        model: str,
        collection: "Collection",
        *,
        max_tokens: int = 256,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        from retrodistill.students.dense import DenseEncoder

        if not model:
            raise ConfigError("teacher bi-encoder needs a model: bi-encoder:FOLDER or a hub id.")
        self._encoder = DenseEncoder(
            model, max_tokens=max_tokens, batch_tokens=batch_tokens, precision=precision
        )
        self._collection = collection
        self._docs: NDArray[np.float32] | None = None
        self.fingerprint = self._encoder.fingerprint
        self.scale = "cosine" if self._encoder.normalised else "dot"

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the inner product of each query with its document."""
        from retrodistill.store.vectors import doc_vectors

        if self._docs is None:
            self._docs = doc_vectors(self._encoder, self._collection.docs)
        # Nothing is kept from call to call: a resumed shard must see the same batches again.
        queries = self._encoder.encode_queries([query.full_text for query in pairs.queries])
        docs = self._docs[self._collection.docs.rows([doc.id for doc in pairs.docs])]
        scores: NDArray[np.float32] = np.einsum(
            "pd,pd->p", queries[pairs.query_rows], docs[pairs.doc_rows]
        )
        return scores
