"""Exact search over the vectors of a bi-encoder, which come from the cache."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import RetrieverOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts


class DenseRetriever:
    """The documents whose vectors have the highest inner product with the query's.

    The workers of an executor encode the documents; queries and search are this process's.
    """

    def __init__(self, argument: str, docs: "Texts", options: RetrieverOptions) -> None:
        from retrodistill.data.store.vectors import doc_vectors, fill_vectors
        from retrodistill.models.indexes.exact import ExactIndex
        from retrodistill.models.inference.cuts import counted_cuts
        from retrodistill.models.students.dense import DenseEncoder

        if not argument:
            raise ConfigError("retriever dense needs a model: dense:FOLDER or dense:HUB_ID.")
        self.encoder = DenseEncoder(
            argument, max_tokens=options.max_tokens, precision=options.precision
        )
        self.fingerprint = self.encoder.fingerprint
        self._docs = docs
        self._index = ExactIndex(self.encoder.dimension)
        self.nbytes = len(docs) * self.encoder.dimension * 4
        with counted_cuts("documents"):
            fill_vectors(self.encoder, docs, executor=options.executor, workers=options.workers)
            self._index.add(docs.ids(), doc_vectors(self.encoder, docs))

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's nearest documents."""
        ids, scores = self._index.search(self.encoder.encode_queries(queries), k)
        for doc_ids, values in zip(ids, scores, strict=True):
            yield self._docs.rows(doc_ids), values
