"""Late-interaction teachers: MaxSim of token vectors, each document encoded once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Pairs, Rows, Unit
from retrodistill.models.inference.options import DEFAULTS, ModelOptions
from retrodistill.models.students.maxsim import QueryTokens, maxsim, ranges

QUERIES_AT_ONCE = 8192
"""Queries whose token vectors are held; a call with more encodes its documents more than once."""


class LateInteractionTeacher:
    """MaxSim of a ColBERT-style model: the sum over query tokens of the best inner product.

    A call encodes its queries, then its documents in batches of `batch_tokens`, and scores all
    pairs of a batch at once: the memory is that of the queries' vectors and of one batch. Which
    tokens count (markers, expansion, skipped punctuation) is the model's own choice. Documents
    lose their end at `max_tokens`, or at the model's own limit for documents if that is less;
    queries at the model's own limit. The transformer runs in `precision`, the projection and
    MaxSim in float32. A model made for means over the query's tokens gives these, on the scale
    `cosine`. A document of which no token counts gets the least that MaxSim with vectors of
    length 1 can be (in the library -1e9, from which no margin can be learned).
    """

    unit: Unit = "document"
    reads_alone = True

    def __init__(
        self,
        model: str,
        options: ModelOptions = DEFAULTS,
    ) -> None:
        from retrodistill.models.students.late_interaction import LateInteractionEncoder

        if not model:
            raise ConfigError("teacher late-interaction needs a model: late-interaction:FOLDER.")
        self._encoder = LateInteractionEncoder(
            model,
            max_tokens=options.max_tokens,
            batch_tokens=options.batch_tokens,
            precision=options.precision,
        )
        self.fingerprint = self._encoder.fingerprint
        self.scale = "cosine" if self._encoder.averaged else "maxsim"

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the MaxSim of each pair."""
        scores = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs.queries), QUERIES_AT_ONCE):
            queries = [query.full_text for query in pairs.queries[start : start + QUERIES_AT_ONCE]]
            rows = pairs.query_rows - start
            positions = np.flatnonzero((rows >= 0) & (rows < len(queries)))
            distinct, doc_rows = np.unique(pairs.doc_rows[positions], return_inverse=True)
            docs = [pairs.docs[row].full_text for row in distinct]
            scores[positions] = self._score(queries, docs, rows[positions], doc_rows)
        return scores

    def _score(
        self, queries: Sequence[str], docs: Sequence[str], query_rows: Rows, doc_rows: Rows
    ) -> NDArray[np.float64]:
        """Return the scores of pairs of rows, of which all documents occur."""
        import torch

        scores = np.empty(len(doc_rows))
        # Pairs in order of their documents, and where each document's pairs start.
        order = np.argsort(doc_rows, kind="stable")
        counts = np.bincount(doc_rows, minlength=len(docs))
        starts = np.cumsum(counts) - counts
        with torch.inference_mode():
            tokens = QueryTokens.of(self._encoder.encode_queries(queries), len(queries))
            for batch in self._encoder.encode_docs(docs):
                pair_counts = counts[batch.positions]
                rows = order[ranges(starts[batch.positions], pair_counts)]
                scores[rows] = maxsim(tokens, query_rows[rows], batch, pair_counts)
        if self._encoder.averaged:
            scores /= np.maximum(tokens.counts[query_rows], 1)
        return scores
