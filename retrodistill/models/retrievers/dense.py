"""Exact search over the vectors of a bi-encoder, which come from the cache."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import RetrieverOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts
    from retrodistill.models.indexes.exact import ExactIndex


class DenseRetriever:
    """The documents whose vectors have the highest inner product with the query's.

    The workers of an executor encode the documents; queries and search are this process's.
    """

    def __init__(self, argument: str, docs: "Texts", options: RetrieverOptions) -> None:
        from retrodistill.models.students.dense import DenseEncoder

        if not argument:
            raise ConfigError("retriever dense needs a model: dense:FOLDER or dense:HUB_ID.")
        self.encoder = DenseEncoder(
            argument,
            max_tokens=options.max_tokens,
            batch_tokens=options.batch_tokens,
            precision=options.precision,
        )
        self.fingerprint = self.encoder.fingerprint
        self._docs, self._options = docs, options

    @cached_property
    def _index(self) -> "ExactIndex":
        from retrodistill.data.store.vectors import doc_vectors, fill_vectors
        from retrodistill.models.indexes.exact import ExactIndex
        from retrodistill.models.inference.cuts import counted_cuts

        index, options = ExactIndex(self.encoder.dimension), self._options
        with counted_cuts("documents"):
            fill_vectors(
                self.encoder, self._docs, executor=options.executor, workers=options.workers
            )
            index.add(self._docs.ids(), doc_vectors(self.encoder, self._docs))
        return index

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return len(self._index) * self.encoder.dimension * 4

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's nearest documents."""
        ids, scores = self._index.search(self.encoder.encode_queries(queries), k)
        for doc_ids, values in zip(ids, scores, strict=True):
            yield self._docs.rows(doc_ids), values
