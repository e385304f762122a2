"""Sparse encoders: a query and a document have a weight for each word of a vocabulary."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.models.students.batches import RetrieverBatch
from retrodistill.models.students.kinds import CardText, StudentKind
from retrodistill.models.students.kinds.dense import BiEncoderTask
from retrodistill.models.students.sparse import SparseTextEncoder, load_sparse_encoder


def doc_scorer(
    model: Any, queries: Sequence[str], **options: Any
) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return what scores documents' texts for these queries, by inner products."""
    encoder = SparseTextEncoder(model, **options)
    vectors = encoder.encode_queries(queries)

    def score(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray((vectors @ encoder.encode_docs(texts).T).toarray(), np.float32)

    return score


KIND = StudentKind(
    name="sparse",
    noun="sparse encoder",
    about="It gives a query and a document a weight for each word of its vocabulary; the inner "
    "product says how well they fit.",
    saved_as=("SparseEncoder",),
    load=load_sparse_encoder,
    task=BiEncoderTask,
    batches=RetrieverBatch,
    teacher="sparse",
    retriever="sparse",
    doc_scorer=doc_scorer,
    card=CardText(
        library_class="SparseEncoder",
        pipeline="feature-extraction",
        tags=("sparse-encoder", "sparse"),
        usage="model.similarity(model.encode_query([{query}]), model.encode_document([{doc}]))",
    ),
)
