"""Bi-encoder teachers: inner products of vectors, each document encoded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Doc, Pairs, Unit
from retrodistill.models.inference.options import DEFAULTS, ModelOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


class BiEncoderTeacher:
    """Inner products of a sentence-transformers model's vectors.

    The whole collection is encoded at the first call (and kept in the cache), so that a score
    never depends on the other pairs of a call. `score_all` encodes what it is given, and no more.
    """

    unit: Unit = "pair"
    reads_alone = True
    scores_layers = True

    def __init__(
        self,
        model: str,
        collection: "Collection",
        options: ModelOptions = DEFAULTS,
    ) -> None:
        from retrodistill.models.students.dense import DenseEncoder

        if not model:
            raise ConfigError("teacher bi-encoder needs a model: bi-encoder:FOLDER or a hub id.")
        self._encoder = DenseEncoder(
            model,
            max_tokens=options.max_tokens,
            batch_tokens=options.batch_tokens,
            precision=options.precision,
        )
        self._collection = collection
        self._docs: NDArray[np.float32] | None = None
        self.fingerprint = self._encoder.fingerprint
        self.scale = "cosine" if self._encoder.normalised else "dot"

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the inner product of each query with its document."""
        from retrodistill.data.store.vectors import doc_vectors

        if self._docs is None:
            self._docs = doc_vectors(self._encoder, self._collection.docs)
        # Nothing is kept from call to call: a resumed shard must see the same batches again.
        queries = self._encoder.encode_queries([query.full_text for query in pairs.queries])
        docs = self._docs[self._collection.docs.rows([doc.id for doc in pairs.docs])]
        return self._compare(queries[pairs.query_rows], docs[pairs.doc_rows])

    def score_all(self, queries: Sequence[Doc], docs: Sequence[Doc]) -> NDArray[np.float32]:
        """Return the score of each query with each document, (queries, documents)."""
        query_vectors = self._encoder.encode_queries([query.full_text for query in queries])
        doc_vectors = self._encoder.encode_docs([doc.full_text for doc in docs])
        repeated = (np.tile(vector, (len(docs), 1)) for vector in query_vectors)
        return np.stack([self._compare(vectors, doc_vectors) for vectors in repeated])

    def score_layers(self, queries: Sequence[Doc], docs: Sequence[Doc]) -> NDArray[np.float32]:
        """Return the scores by each layer's vectors, (layers, queries, documents), the last last.

        Raises:
            ConfigError: the model has no vectors of its layers.

        """
        from retrodistill.models.students.layer_vectors import encode_layers

        query_vectors = encode_layers(self._encoder, [each.full_text for each in queries], "query")
        doc_vectors = encode_layers(self._encoder, [each.full_text for each in docs], "document")
        scores: NDArray[np.float32] = np.einsum("qld,mld->lqm", query_vectors, doc_vectors)
        return scores

    def _compare(
        self, queries: NDArray[np.float32], docs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return a score of each row of vectors."""
        scores: NDArray[np.float32] = np.einsum("pd,pd->p", queries, docs)
        return scores


class PairHeadTeacher(BiEncoderTeacher):
    """The head over pairs of vectors that the objective dse trains: a reranker without a body.

    Its student may be a folder only, since sentence-transformers' format has no such head.
    """

    scores_layers = False

    def __init__(
        self, model: str, collection: "Collection", options: ModelOptions = DEFAULTS
    ) -> None:
        from retrodistill.models.students.pair_head import load_pair_head

        super().__init__(model, collection, options)
        self._head = load_pair_head(Path(model))
        weights = [tensor.numpy().tobytes() for tensor in self._head.state_dict().values()]
        self.fingerprint = digest(self.fingerprint, *weights)
        self.scale = "unknown"

    def _compare(
        self, queries: NDArray[np.float32], docs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            scores = self._head(torch.from_numpy(queries), torch.from_numpy(docs))
        values: NDArray[np.float32] = scores.numpy()
        return values
