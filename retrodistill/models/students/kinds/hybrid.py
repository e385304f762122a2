"""Hybrid students: one body with a dense, a sparse and a multi-vector head."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from retrodistill.models.inference import run_model
from retrodistill.models.students.batches import BatchRows, RetrieverBatch
from retrodistill.models.students.hybrid import (
    DENSE,
    HEAD_WEIGHTS,
    MULTI,
    SPARSE,
    HybridEncoder,
    load_hybrid,
)
from retrodistill.models.students.kinds import StudentKind
from retrodistill.models.students.kinds.dense import KIND as DENSE_KIND
from retrodistill.models.students.kinds.late_interaction import KIND as MULTI_KIND
from retrodistill.models.students.kinds.late_interaction import batch_maxsim
from retrodistill.models.students.kinds.sparse import KIND as SPARSE_KIND
from retrodistill.models.students.tasks import (
    BATCH,
    LISTS,
    VECTORS,
    Chunks,
    RetrieverTask,
    positions,
)
from retrodistill.models.students.towers import Side, side_modules
from retrodistill.objectives.labels import HEAD_SIGNALS


class HybridTask(RetrieverTask):
    """Three scores of a query and a document from one pass of the body.

    `HEAD.scores` and `HEAD.batch_scores` are those of a head; `student_scores` and `batch_scores`
    are the sum of the heads' scores, with HEAD_WEIGHTS, so that a loss that names no head trains
    all of them. `query_vectors` and `doc_vectors` are the dense head's.
    """

    gives = LISTS | BATCH | VECTORS | HEAD_SIGNALS

    def encode(self, chunks: Chunks, side: Side) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `HybridModel.heads` makes of every text, in batch order."""
        body = side_modules(self.model, side)[:1]

        def read(features: dict[str, Any]) -> Tensor:
            outputs = run_model(body, features, self.dtype, task=side)
            tokens: Tensor = outputs["token_embeddings"].float()
            return tokens

        chunk_heads = [
            self.model.heads({**chunk["features"], "token_embeddings": tokens}, side)
            for chunk, tokens in zip(chunks, self.each(chunks, read), strict=True)
        ]
        dense, sparse, multi = zip(*chunk_heads, strict=True)
        longest = max(tokens.shape[1] for tokens in multi)
        padded = [pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens in multi]
        order = positions(chunks).argsort()
        return torch.cat(dense)[order], torch.cat(sparse)[order], torch.cat(padded)[order]

    def values(
        self,
        queries: tuple[Tensor, Tensor, Tensor],
        docs: tuple[Tensor, Tensor, Tensor],
        candidates: Tensor,
        inputs: dict[str, Tensor],
        batch: BatchRows | None,
    ) -> dict[str, Tensor]:
        """Return each weighted term."""
        own = self.own_signals(queries, docs, candidates)
        return self.terms(inputs | own | {"query_vectors": self.of_all(queries[0])}, batch)

    def own_signals(
        self,
        queries: tuple[Tensor, Tensor, Tensor],
        docs: tuple[Tensor, Tensor, Tensor],
        candidates: Tensor,
    ) -> dict[str, Tensor]:
        """Return the scores of each head and of their sum, and the dense head's vectors."""
        tokens = queries[2].any(-1).sum(-1, keepdim=True).clamp_min(1)
        heads = {
            DENSE: queries[0] @ docs[0].T,
            SPARSE: queries[1] @ docs[1].T,
            MULTI: batch_maxsim(queries[2], docs[2]) / tokens,
        }
        total = torch.stack([HEAD_WEIGHTS[head] * scores for head, scores in heads.items()]).sum(0)
        signals = {"query_vectors": queries[0], "doc_vectors": docs[0]}
        signals |= {"student_scores": total.gather(1, candidates), "batch_scores": total}
        for head, scores in heads.items():
            signals[f"{head}.scores"] = scores.gather(1, candidates)
            signals[f"{head}.batch_scores"] = scores
        return signals


def doc_scorer(
    model: Any, queries: Sequence[str], **options: Any
) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return what scores documents' texts for these queries, by the sum of the heads."""
    return HybridEncoder(model, **options).scorer(queries)


KIND = StudentKind(
    name="hybrid",
    noun="hybrid model",
    about="One transformer has three heads: a vector of the text, weights of its words, and a "
    "vector of each token. Each is a model of its own, and their scores may be added: "
    + " + ".join(f"{weight:g} {head}" for head, weight in HEAD_WEIGHTS.items())
    + ".",
    saved_as=(),  # its folder is that of its dense head
    load=load_hybrid,
    task=HybridTask,
    batches=RetrieverBatch,
    teacher="bi-encoder",
    retriever="hybrid",
    doc_scorer=doc_scorer,
    settings=frozenset({"pooling", "query_prompt", "doc_prompt"}),
    card=replace(
        DENSE_KIND.card,
        tags=(*DENSE_KIND.card.tags, "sparse-encoder", "multi-vector"),
        parts=((SPARSE, SPARSE_KIND.card), (MULTI, MULTI_KIND.card)),
    ),
)
