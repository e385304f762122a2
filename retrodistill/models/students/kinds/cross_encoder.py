"""Cross-encoders: a query and a document are read together, and have one score."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from retrodistill.base.config import TrainSettings
from retrodistill.base.types import Rows
from retrodistill.models.inference import padded, run_model, token_batches
from retrodistill.models.students.batches import (
    BatchRows,
    SignalProvider,
    TrainingExample,
    list_signals,
)
from retrodistill.models.students.cross_encoder import load_cross_encoder, pair_rows
from retrodistill.models.students.kinds import CardText, StudentKind
from retrodistill.models.students.tasks import (
    BATCH,
    LISTS,
    TOKEN_STATES,
    Chunks,
    Task,
    positions,
    without_autocast,
)
from retrodistill.objectives.objective import shape_of

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from retrodistill.data.datasets import Collection

CPU = torch.device("cpu")


class CrossEncoderTask(Task):
    """Scores are the raw logits of the pairs."""

    model: "CrossEncoder"
    gives = LISTS | BATCH | TOKEN_STATES

    @without_autocast
    def forward(
        self, pairs: Chunks, signals: dict[str, Tensor], batch: BatchRows | None = None
    ) -> dict[str, Tensor]:
        """Read every pair, and lay the scores out as lists."""
        inputs = signals | self.scores({"pairs": pairs, "signals": signals})
        return self.loss(self.terms(inputs, batch))

    def scores(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the score of each pair, laid out as lists (B, N)."""
        pairs, mask = inputs["pairs"], inputs["signals"]["mask"]

        def read(features: dict[str, Any]) -> Tensor:
            scores: Tensor = run_model(self.model, features, self.dtype)["scores"]
            return scores.float()

        logits = torch.cat(self.each(pairs, read))[positions(pairs).argsort()].reshape(-1)
        scores = logits.new_zeros(mask.shape).masked_scatter(mask, logits)
        return {"student_scores": scores, "batch_scores": scores}


class PairBatch:
    """Collate examples for a student that reads pairs: one pair of texts a candidate."""

    def __init__(
        self,
        model: Any,
        collection: "Collection",
        settings: TrainSettings,
        sources: Sequence[SignalProvider] = (),
    ) -> None:
        self._model, self._batch_tokens = model, settings.batch_tokens
        self._max_tokens = min(model.max_seq_length or 512, settings.doc_tokens)
        self._queries, self._docs = collection.queries, collection.docs
        # A batch is its own list, so what is of shape (M, ...) elsewhere has no place in it.
        of_lists = [
            source
            for source in sources
            if not any("M" in (shape_of(name) or "").split() for name in source.gives)
        ]
        self._stored = [source for source in of_lists if not source.live]
        self._live = len(self._stored) < len(of_lists)

    def __call__(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        """Return the inputs of `CrossEncoderTask.forward`."""
        counts = [len(example.docs) for example in examples]
        doc_rows = np.concatenate([example.docs for example in examples])
        query_rows = np.array([example.query for example in examples])
        queries = self._queries.full_texts(query_rows)
        docs = self._docs.full_texts(doc_rows)
        batch = BatchRows(query_rows, np.unique(doc_rows), examples)
        signals = list_signals(examples)
        for source in self._stored:
            signals |= source.of(batch, None)
        # The batch of a cross-encoder is its own list: other queries' documents were not read.
        signals |= {
            "batch_candidates": signals["mask"],
            "batch_labels": signals["labels"],
            "batch_mask": signals["labels"] | signals["trusted_negatives"],
        }
        owners = np.repeat(np.arange(len(queries)), counts)
        inputs = {"pairs": self._chunks(queries, owners, docs), "signals": signals}
        return inputs | {"batch": batch} if self._live else inputs

    def _chunks(
        self, queries: Sequence[str], owners: Rows, docs: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return the pairs in chunks: each document with its query, `queries[owners[i]]`."""
        firsts = [queries[owner] for owner in owners]
        rows, beside = pair_rows(self._model, firsts, docs, max_tokens=self._max_tokens)
        lengths, tokenizer = [len(row["input_ids"]) for row in rows], self._model.tokenizer
        return [
            {
                "features": padded(tokenizer, [rows[index] for index in indices], CPU) | beside,
                "positions": torch.from_numpy(indices),
            }
            for indices in token_batches(lengths, self._batch_tokens)
        ]


def scoring_heads(model: Any) -> list[Any]:
    """Return the layers that end in one score, which a new cross-encoder has to learn whole."""
    return [layer for layer in model.modules() if getattr(layer, "out_features", 0) == 1]


KIND = StudentKind(
    name="cross-encoder",
    noun="cross-encoder",
    about="It reads a query and a document together, and gives one score.",
    saved_as=("CrossEncoder",),
    load=partial(load_cross_encoder, new_head=True),
    task=CrossEncoderTask,
    batches=PairBatch,
    teacher="cross-encoder",
    new_layers=scoring_heads,
    card=CardText(
        library_class="CrossEncoder",
        pipeline="text-ranking",
        tags=("cross-encoder", "reranker"),
        usage="model.predict([({query}, {doc})])",
    ),
)
