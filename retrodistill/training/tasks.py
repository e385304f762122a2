"""A model and its objective as one module whose forward pass returns the loss.

That is the form that transformers.Trainer trains. The body runs in the chosen number type;
scores and losses are float32.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from retrodistill.inference import run_model
from retrodistill.objective import Signals

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Objective = Callable[[Signals], dict[str, Tensor]]


class Task(nn.Module):
    """What bi-encoder and cross-encoder share: chunks through a body, signals to a loss."""

    def __init__(self, model: nn.Sequential, objective: Objective, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self._objective = objective
        self.dtype = dtype
        self.losses: dict[str, float] = {}
        """Value of each weighted loss term in the last forward pass, for the log."""

    def encode(self, chunks: list[dict[str, Any]], output: str) -> Tensor:
        """Return the model's float32 output for every text of the chunks, in batch order."""
        outputs = [run_model(self.model, chunk["features"], self.dtype) for chunk in chunks]
        places = torch.cat([chunk["places"] for chunk in chunks])
        return torch.cat([out[output].float() for out in outputs])[places.argsort()]

    def loss(self, signals: Signals) -> dict[str, Tensor]:
        """Return the weighted sum of the terms as the Trainer wants it."""
        values = self._objective(signals)
        self.losses = {name: float(value.detach()) for name, value in values.items()}
        return {"loss": torch.stack(list(values.values())).sum()}


class BiEncoderTask(Task):
    """Scores are inner products of query and document vectors."""

    model: "SentenceTransformer"

    def forward(
        self,
        queries: list[dict[str, Any]],
        docs: list[dict[str, Any]],
        candidates: Tensor,
        signals: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Encode queries and distinct documents once, and compare them all."""
        query_vectors = self.encode(queries, "sentence_embedding")
        doc_vectors = self.encode(docs, "sentence_embedding")
        batch_scores = query_vectors @ doc_vectors.T
        return self.loss(
            Signals(
                student_scores=batch_scores.gather(1, candidates),
                batch_scores=batch_scores,
                query_vectors=query_vectors,
                doc_vectors=doc_vectors,
                **signals,
            )
        )


class CrossEncoderTask(Task):
    """Scores are the raw logits of the pairs."""

    model: "CrossEncoder"

    def forward(self, pairs: list[dict[str, Any]], signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Read every pair, and lay the scores out as lists."""
        logits = self.encode(pairs, "scores").reshape(-1)
        scores = logits.new_zeros(signals["mask"].shape).masked_scatter(signals["mask"], logits)
        return self.loss(Signals(student_scores=scores, batch_scores=scores, **signals))
