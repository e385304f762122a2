"""Exact search with all heads of a hybrid student at once."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.progress import bar
from retrodistill.models.retrievers.encoded import EncodedRetriever
from retrodistill.models.retrievers.late_interaction import keep_best

if TYPE_CHECKING:
    from retrodistill.models.students.hybrid import HybridEncoder

DOCS_AT_ONCE = 512
"""Documents that are encoded and scored at once."""


class HybridRetriever(EncodedRetriever):
    """The documents of highest weighted sum of the dense, the sparse and the multi-vector score.

    Nothing is kept of the documents: each search reads them all, for all of its queries.
    """

    name = "hybrid"

    @staticmethod
    def _encoder_class() -> "type[HybridEncoder]":
        from retrodistill.models.students.hybrid import HybridEncoder

        return HybridEncoder

    @property
    def nbytes(self) -> int:
        """Zero: it holds nothing for the documents."""
        return 0

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's best documents, and all equal to the last."""
        scorer = self.encoder.scorer(queries)
        best = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        with bar("encoding documents", len(self._docs)) as advance:
            for start in range(0, len(self._docs), DOCS_AT_ONCE):
                rows = np.arange(start, min(start + DOCS_AT_ONCE, len(self._docs)))
                for query, scores in enumerate(scorer(self._docs.full_texts(rows))):
                    best[query] = keep_best(*best[query], rows, scores, k)
                advance(len(rows))
        for rows, scores in best:
            order = np.argsort(-scores, kind="stable")
            yield rows[order], scores[order]
