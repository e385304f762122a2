"""Late interaction: each token of a text has a vector, and scores are MaxSim."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from retrodistill.models.inference import run_model
from retrodistill.models.students.batches import BatchRows, RetrieverBatch
from retrodistill.models.students.kinds import CardText, StudentKind
from retrodistill.models.students.late_interaction import (
    LateInteractionEncoder,
    load_late_interaction,
)
from retrodistill.models.students.maxsim import QueryTokens, maxsim
from retrodistill.models.students.tasks import (
    BATCH,
    LISTS,
    TOKEN_STATES,
    Chunks,
    RetrieverTask,
    positions,
)
from retrodistill.models.students.token_states import TOKEN_VECTORS
from retrodistill.models.students.towers import Side, side_modules


class LateInteractionTask(RetrieverTask):
    """One vector a token; a score is the sum of each query token's best match (MaxSim).

    Where the model is made for it, it is their mean.
    """

    gives = LISTS | BATCH | TOKEN_STATES | TOKEN_VECTORS

    def encode(self, chunks: Chunks, side: Side) -> Tensor:
        """Return float32 token vectors (texts, tokens, dimension), zero where no token counts."""
        if not chunks:  # a batch of queries or of documents alone
            shape = (0, 1, int(self.model.get_embedding_dimension()))
            return torch.zeros(shape, device=self.model.device, requires_grad=True)
        modules = side_modules(self.model, side)

        def read(features: dict[str, Any]) -> Tensor:
            outputs = run_model(modules, features, self.dtype, task=side)
            vectors: Tensor = outputs["token_embeddings"].float()
            counting: Tensor = outputs["attention_mask"].bool()
            return vectors * counting[..., None]

        chunk_vectors = self.each(chunks, read)
        longest = max(vectors.shape[1] for vectors in chunk_vectors)
        padded = [pad(vectors, (0, 0, 0, longest - vectors.shape[1])) for vectors in chunk_vectors]
        return torch.cat(padded)[positions(chunks).argsort()]

    def values(
        self,
        queries: Tensor,
        docs: Tensor,
        candidates: Tensor,
        inputs: dict[str, Tensor],
        batch: BatchRows | None,
    ) -> dict[str, Tensor]:
        """Return each weighted term."""
        return self.terms(inputs | self.own_signals(queries, docs, candidates), batch)

    def own_signals(self, queries: Tensor, docs: Tensor, candidates: Tensor) -> dict[str, Tensor]:
        """Return the scores of a query's own candidates, and of all documents of the batch."""
        scores = batch_maxsim(queries, docs)
        if self.model.similarity_fn_name == "meanmaxsim":
            scores = scores / queries.any(-1).sum(-1, keepdim=True).clamp_min(1)
        return {"student_scores": scores.gather(1, candidates), "batch_scores": scores}


def batch_maxsim(queries: Tensor, docs: Tensor) -> Tensor:
    """Return the scores (B, M) of token vectors (B, tokens, D) and (M, tokens, D), to be trained.

    Rows of zeros do not count: as a document token they are never a best match, as a query token
    they add nothing. A document or a query without any token scores 0.
    """
    absent = ~docs.any(-1)
    similarity = torch.einsum("bqd,mtd->bmqt", queries, docs)
    best = similarity.masked_fill(absent[None, :, None], float("-inf")).amax(-1)
    empty = ~queries.any(-1)[:, None] | absent.all(-1)[None, :, None]
    scores: Tensor = best.masked_fill(empty, 0.0).sum(-1)
    return scores


def doc_scorer(
    model: Any, queries: Sequence[str], **options: Any
) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return what scores documents' texts for these queries, by MaxSim."""
    encoder = LateInteractionEncoder(model, **options)
    tokens = QueryTokens.of(encoder.encode_queries(queries), len(queries))

    def score(texts: Sequence[str]) -> NDArray[np.float32]:
        scores = np.empty((len(queries), len(texts)), np.float32)
        for batch in encoder.encode_docs(texts):
            count = len(batch.positions)
            query_rows = np.tile(np.arange(len(queries)), count)
            values = maxsim(tokens, query_rows, batch, np.full(count, len(queries)))
            scores[:, batch.positions] = values.reshape(count, len(queries)).T
        if encoder.averaged:
            scores /= tokens.counts[:, None]
        return scores

    return score


KIND = StudentKind(
    name="late-interaction",
    noun="late-interaction model",
    about="It gives each token a vector; a document's score is the sum over the query's tokens of "
    "the best inner product with one of its own.",
    saved_as=("MultiVectorEncoder", "ColBERT"),  # PyLate saves the second
    load=partial(load_late_interaction, new_projection=True),
    task=LateInteractionTask,
    batches=RetrieverBatch,
    teacher="late-interaction",
    retriever="late-interaction",
    doc_scorer=doc_scorer,
    card=CardText(
        library_class="MultiVectorEncoder",
        pipeline="feature-extraction",
        tags=("multi-vector", "late-interaction"),
        usage="model.similarity(model.encode_query([{query}]), model.encode_document([{doc}]))",
    ),
)
