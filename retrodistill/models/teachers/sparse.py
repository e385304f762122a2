"""Sparse teachers: inner products of vectors over a vocabulary, each text encoded once."""

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Pairs, Unit
from retrodistill.models.inference.options import DEFAULTS, ModelOptions

PAIRS_AT_ONCE = 16_384
"""Pairs whose vectors are multiplied at a time."""


class SparseTeacher:
    """Inner products of a SPLADE-style model's vectors.

    A call encodes each of its queries and documents once, and holds their vectors as sparse rows;
    rows as long as the vocabulary exist for one batch only. Documents lose their end at
    `max_tokens`, or at the model's own limit for documents if that is less; queries at the
    model's own limit. The transformer and its output layer run in `precision`, the weights of
    the words and their products in float32.
    """

    scale = "dot"
    unit: Unit = "document"
    reads_alone = True

    def __init__(
        self,
        model: str,
        options: ModelOptions = DEFAULTS,
    ) -> None:
        from retrodistill.models.students.sparse import SparseTextEncoder

        if not model:
            raise ConfigError("teacher sparse needs a model: sparse:FOLDER or a hub id.")
        self._encoder = SparseTextEncoder(
            model,
            max_tokens=options.max_tokens,
            batch_tokens=options.batch_tokens,
            precision=options.precision,
        )
        self.fingerprint = self._encoder.fingerprint

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the inner product of each query with its document."""
        scores = np.empty(len(pairs), np.float32)
        if not len(pairs):
            return scores
        queries = self._encoder.encode_queries([query.full_text for query in pairs.queries])
        docs = self._encoder.encode_docs([doc.full_text for doc in pairs.docs])
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            batch = slice(start, start + PAIRS_AT_ONCE)
            query_vectors = queries[pairs.query_rows[batch]].astype(np.float64)
            scores[batch] = query_vectors.multiply(docs[pairs.doc_rows[batch]]).sum(1)
        return scores
