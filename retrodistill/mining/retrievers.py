"""First stages: given queries, the best documents of a collection."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.config import Precision
from retrodistill.errors import ConfigError
from retrodistill.progress import bar
from retrodistill.store.runs import Run

if TYPE_CHECKING:
    from retrodistill.datasets import Collection


def bm25(
    argument: str, collection: "Collection", query_ids: Sequence[str], *, k: int, **_: object
) -> Run:
    """Return the documents of highest BM25 score."""
    from retrodistill.lexical import Lexicon

    if argument:
        raise ConfigError(f"retriever bm25 takes no argument, but got {argument!r}.")
    lexicon = Lexicon(collection.docs.full_texts())
    return _one_by_one("bm25", lexicon.top, collection, query_ids, k)


def lucene(
    language: str, collection: "Collection", query_ids: Sequence[str], *, k: int, **_: object
) -> Run:
    """Return the documents of highest BM25 score in Lucene; the argument is the language."""
    from retrodistill.lucene import LuceneIndex

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
) -> Run:
    """Return the documents whose vectors are nearest to the query's, by exact search."""
    from retrodistill.indexes.exact import ExactIndex
    from retrodistill.store.vectors import doc_vectors
    from retrodistill.students.dense import DenseEncoder

    if not argument:
        raise ConfigError("retriever dense needs a model: dense:FOLDER or dense:HUB_ID.")
    encoder = DenseEncoder(argument, max_tokens=max_tokens, precision=precision)
    index = ExactIndex(encoder.dimension)
    index.add(collection.docs.ids(), doc_vectors(encoder, collection.docs))
    queries = collection.queries.full_texts(collection.queries.rows(query_ids))
    ids, scores = index.search(encoder.encode_queries(queries), k)
    return Run.from_columns(
        [query for query, found in zip(query_ids, ids, strict=True) for _ in found],
        [doc for found in ids for doc in found],
        [float(score) for row in scores for score in row],
        source=f"dense:{argument}",
    )
