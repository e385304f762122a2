"""Exact search over the vectors of a bi-encoder, which come from the cache."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.models.retrievers.encoded import EncodedRetriever

if TYPE_CHECKING:
    from retrodistill.models.indexes.exact import ExactIndex
    from retrodistill.models.students.dense import DenseEncoder


class DenseRetriever(EncodedRetriever):
    """The documents whose vectors have the highest inner product with the query's.

    The workers of an executor encode the documents; queries and search are this process's.
    """

    name = "dense"

    @staticmethod
    def _encoder_class() -> "type[DenseEncoder]":
        from retrodistill.models.students.dense import DenseEncoder

        return DenseEncoder

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
        dimension: int = self.encoder.dimension
        return len(self._index) * dimension * 4

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's nearest documents."""
        ids, scores = self._index.search(self.encoder.encode_queries(queries), k)
        for doc_ids, values in zip(ids, scores, strict=True):
            yield self._docs.rows(doc_ids), values
