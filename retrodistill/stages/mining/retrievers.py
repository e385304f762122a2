"""First stages: given queries, the best documents of a collection."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Executor, Precision
from retrodistill.base.errors import ConfigError
from retrodistill.base.progress import bar
from retrodistill.data.store.runs import Run
from retrodistill.models.inference.cuts import counted_cuts

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from retrodistill.data.datasets import Collection, Texts
    from retrodistill.models.students.sparse import SparseTextEncoder

DOCS_AT_ONCE = 2048
"""Documents whose words are weighed between two steps of the progress bar."""


def bm25(
    argument: str, collection: "Collection", query_ids: Sequence[str], *, k: int, **_: object
) -> Run:
    """Return the documents of highest BM25 score."""
    from retrodistill.models.retrievers.bm25 import Lexicon

    if argument:
        raise ConfigError(f"retriever bm25 takes no argument, but got {argument!r}.")
    lexicon = Lexicon(collection.docs.full_texts())
    return _one_by_one("bm25", lexicon.top, collection, query_ids, k)


def lucene(
    language: str, collection: "Collection", query_ids: Sequence[str], *, k: int, **_: object
) -> Run:
    """Return the documents of highest BM25 score in Lucene; the argument is the language."""
    from retrodistill.models.retrievers.lucene import LuceneIndex

    docs = collection.docs
    index = LuceneIndex(docs, docs.fingerprint, language=language or "en")
    return _one_by_one("lucene", index.top, collection, query_ids, k)


def _one_by_one(
    name: str,
    top: Callable[[str, int], tuple[NDArray[np.int64], NDArray[np.float32]]],
    collection: "Collection",
    query_ids: Sequence[str],
    k: int,
) -> Run:
    """Return the rows and scores that `top` gives for the text of each query."""
    texts = collection.queries.full_texts(collection.queries.rows(query_ids))
    columns: tuple[list[str], list[str], list[float]] = ([], [], [])
    with bar(name, len(texts)) as advance:
        for query_id, text in zip(query_ids, texts, strict=True):
            rows, scores = top(text, k)
            columns[0].extend([query_id] * len(rows))
            columns[1].extend(collection.docs.ids(rows))
            columns[2].extend(scores.tolist())
            advance(1)
    return Run.from_columns(*columns, source=name)


def dense(
    argument: str,
    collection: "Collection",
    query_ids: Sequence[str],
    *,
    k: int,
    max_tokens: int | None = None,
    precision: Precision = "auto",
    executor: Executor = "local",
    workers: int | None = None,
) -> Run:
    """Return the documents whose vectors are nearest to the query's, by exact search.

    The executor's workers encode the documents; queries and search are this process's.
    """
    from retrodistill.data.store.vectors import doc_vectors, fill_vectors
    from retrodistill.models.indexes.exact import ExactIndex
    from retrodistill.models.students.dense import DenseEncoder

    if not argument:
        raise ConfigError("retriever dense needs a model: dense:FOLDER or dense:HUB_ID.")
    encoder = DenseEncoder(argument, max_tokens=max_tokens, precision=precision)
    index = ExactIndex(encoder.dimension)
    with counted_cuts("documents"):
        fill_vectors(encoder, collection.docs, executor=executor, workers=workers)
        index.add(collection.docs.ids(), doc_vectors(encoder, collection.docs))
    queries = collection.queries.full_texts(collection.queries.rows(query_ids))
    ids, scores = index.search(encoder.encode_queries(queries), k)
    return Run.from_columns(
        [query for query, found in zip(query_ids, ids, strict=True) for _ in found],
        [doc for found in ids for doc in found],
        [float(score) for row in scores for score in row],
        source=f"dense:{argument}",
    )


def sparse(
    argument: str,
    collection: "Collection",
    query_ids: Sequence[str],
    *,
    k: int,
    max_tokens: int | None = None,
    precision: Precision = "auto",
    **_: object,
) -> Run:
    """Return the documents of the highest inner product with the query's weights of words.

    Documents that share no word with the query are not found.
    """
    from retrodistill.models.students.sparse import SparseTextEncoder

    if not argument:
        raise ConfigError("retriever sparse needs a model: sparse:FOLDER or sparse:HUB_ID.")
    encoder = SparseTextEncoder(argument, max_tokens=max_tokens, precision=precision)
    queries = encoder.encode_queries(
        collection.queries.full_texts(collection.queries.rows(query_ids))
    )
    postings = Postings(encoder, collection.docs)
    columns: tuple[list[str], list[str], list[float]] = ([], [], [])
    with bar(f"sparse:{argument}", len(query_ids)) as advance:
        for row, query_id in enumerate(query_ids):
            rows, scores = postings.best(queries[[row]], k)
            columns[0].extend([query_id] * len(rows))
            columns[1].extend(collection.docs.ids(rows))
            columns[2].extend(scores.tolist())
            advance(1)
    return Run.from_columns(*columns, source=f"sparse:{argument}").top(k)


class Postings:
    """An inverted index: for each word of a sparse encoder's vocabulary the documents' weights."""

    def __init__(self, encoder: "SparseTextEncoder", docs: "Texts") -> None:
        from scipy.sparse import vstack

        parts = []
        with bar("encoding documents", len(docs)) as advance:
            for start in range(0, len(docs), DOCS_AT_ONCE):
                rows = np.arange(start, min(start + DOCS_AT_ONCE, len(docs)))
                parts.append(encoder.encode_docs(docs.full_texts(rows)))
                advance(len(rows))
        self.encoder = encoder
        self.matrix: csr_array = vstack(parts).astype(np.float64).T.tocsr()

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of the rows that they belong to."""
        return int(
            sum(part.nbytes for part in (self.matrix.data, self.matrix.indices, self.matrix.indptr))
        )

    def top(self, query: str, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores of the documents of a query, as `best` does, best first."""
        rows, scores = self.best(self.encoder.encode_queries([query]), k)
        order = np.argsort(-scores, kind="stable")
        return rows[order], scores[order]

    def best(self, query: "csr_array", k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores of the best documents, and of all that equal the last of them.

        Which of equal documents are kept is `Run.top`'s to say.
        """
        products = (query.astype(np.float64) @ self.matrix).tocoo()
        scores = products.data.astype(np.float32)
        least = np.partition(scores, -k)[-k] if len(scores) > k else 0.0
        kept = np.flatnonzero((scores > 0) & (scores >= least))
        return products.coords[1][kept].astype(np.int64), scores[kept]
