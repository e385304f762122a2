"""Inverted index of a sparse encoder's weights: a SPLADE student as a first stage."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.progress import bar
from retrodistill.base.types import RetrieverOptions
from retrodistill.models.retrievers.encoded import EncodedRetriever

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from retrodistill.data.datasets import Texts
    from retrodistill.models.students.sparse import SparseTextEncoder

DOCS_AT_ONCE = 2048
"""Documents whose weights are computed between two steps of the progress bar."""

ARRAYS = ("data", "indices", "indptr")


class SparseRetriever(EncodedRetriever):
    """The documents of highest inner product with the query's weights of words.

    Documents that share no word with the query are not found.
    """

    name = "sparse"

    @staticmethod
    def _encoder_class() -> "type[SparseTextEncoder]":
        from retrodistill.models.students.sparse import SparseTextEncoder

        return SparseTextEncoder

    @classmethod
    def open(cls, folder: Path, model: str, options: RetrieverOptions) -> Self:
        """Return the retriever that was saved in a folder, with its model.

        Raises:
            DataError: a file is damaged.

        """
        retriever = cls(model, None, options)
        retriever._matrix = _read_postings(folder)
        return retriever

    @cached_property
    def _matrix(self) -> "csr_array":
        return _postings(self.encoder, self._docs)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of the rows that they belong to."""
        return sum(getattr(self._matrix, name).nbytes for name in ARRAYS)

    def save(self, folder: Path) -> None:
        """Write the inverted index into a folder; weights as the encoder gives them, float32."""
        for name in ARRAYS:
            array: NDArray[Any] = getattr(self._matrix, name)
            np.save(folder / f"{name}.npy", array.astype(np.float32) if name == "data" else array)
        np.save(folder / "documents.npy", np.int64(self._matrix.shape[1]))

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's best documents, and all equal to the last."""
        vectors = self.encoder.encode_queries(queries)
        for row in range(len(queries)):
            products = (vectors[[row]].astype(np.float64) @ self._matrix).tocoo()
            scores = products.data.astype(np.float32)
            least = np.partition(scores, -k)[-k] if len(scores) > k else 0.0
            best = np.flatnonzero((scores > 0) & (scores >= least))
            best = best[np.argsort(-scores[best], kind="stable")]
            yield products.coords[1][best].astype(np.int64), scores[best]


def _postings(encoder: "SparseTextEncoder", docs: "Texts") -> "csr_array":
    """Return the weights of all documents: words by documents, float64."""
    from scipy.sparse import vstack

    parts = []
    with bar("encoding documents", len(docs)) as advance:
        for start in range(0, len(docs), DOCS_AT_ONCE):
            rows = np.arange(start, min(start + DOCS_AT_ONCE, len(docs)))
            parts.append(encoder.encode_docs(docs.full_texts(rows)))
            advance(len(rows))
    return vstack(parts).astype(np.float64).T.tocsr()


def _read_postings(folder: Path) -> "csr_array":
    """Return the weights that were saved: words by documents, float64."""
    from scipy.sparse import csr_array

    try:
        data, indices, indptr = (np.load(folder / f"{name}.npy") for name in ARRAYS)
        size = int(np.load(folder / "documents.npy"))
        matrix = csr_array((data, indices, indptr), shape=(len(indptr) - 1, size))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read ({error}). Embed again.") from error
    return matrix.astype(np.float64)
