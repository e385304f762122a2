"""From the examples of a batch to tensors: each distinct document once, sorted by length."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.models.students.spans import SPANS, number_spans
from retrodistill.models.students.towers import (
    SIDES,
    Side,
    side_batches,
    side_length,
    side_modules,
    side_prompts,
)
from retrodistill.objectives.objective import parse_objective

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

Rows = NDArray[np.int64]

QUEUE_ROWS = "queue_rows"
"""Beside the signal `queue_vectors` (Q, T), but no signal: the rows (Q) of its documents."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One query of a batch with its drawn documents, positives first."""

    query: int
    docs: Rows
    teacher_scores: NDArray[np.float32]
    log_weights: NDArray[np.float32]
    """Logarithm of the number of candidates that each document represents: 0 for itself alone."""
    labels: NDArray[np.bool_]
    relevant: frozenset[int]
    doubtful: frozenset[int]


class TrainingText(NamedTuple):
    """A text of a collection: a query's or a document's row."""

    side: Side
    row: int


@dataclass(frozen=True, eq=False, slots=True)
class BatchRows:
    """The texts of a batch, as rows of a collection."""

    queries: Rows
    """Shape (B)."""

    docs: Rows
    """The distinct documents, shape (M)."""

    examples: Sequence[TrainingExample] = ()
    """The queries' lists; none where texts have no lists."""

    spans: Sequence[tuple[int, int]] = ()
    """Position among `docs`, and sentence, of each sentence that the student read whole, where an
    objective asks for such."""


class SignalProvider(Protocol):
    """Provides signals of a batch beside those of its lists."""

    gives: frozenset[str]
    """Names of its signals, of `objective.SIGNALS`."""

    live: bool
    """Whether the signals are computed in the forward pass rather than looked up before it."""

    def of(self, batch: BatchRows, student: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the signals of a batch; a live source is given the student's own signals."""
        ...


def list_signals(examples: Sequence[TrainingExample]) -> dict[str, Tensor]:
    """Return `mask`, `labels`, `trusted_negatives`, all of shape (B, N), padded."""
    width = max((len(example.docs) for example in examples), default=0)
    mask, labels, trusted = torch.zeros(3, len(examples), width, dtype=torch.bool)
    for row, example in enumerate(examples):
        count = len(example.docs)
        labels[row, :count] = torch.from_numpy(example.labels)
        doubtful = np.isin(example.docs, list(example.doubtful))
        trusted[row, :count] = torch.from_numpy(~doubtful)
        mask[row, :count] = True
    return {"mask": mask, "labels": labels, "trusted_negatives": trusted}


class RetrieverBatch:
    """Collate examples, or texts alone, for a student that reads queries and documents apart."""

    def __init__(
        self,
        model: Any,
        collection: "Collection",
        settings: TrainSettings,
        sources: Sequence[SignalProvider] = (),
    ) -> None:
        limit = model.max_seq_length or 512
        longest = {"query": settings.query_tokens, "document": settings.doc_tokens}
        self._limits = {
            side: min(limit, longest[side], side_length(model, side) or limit) for side in SIDES
        }
        self._model, self._batch_tokens = model, settings.batch_tokens
        self._queries, self._docs = collection.queries, collection.docs
        self._reads_docs = settings.freeze != "document"
        self._all_docs = (
            np.arange(len(collection.docs)) if settings.compare == "collection" else None
        )
        self._stored = [source for source in sources if not source.live]
        self._live = len(self._stored) < len(sources)
        terms = parse_objective(settings.objective)
        given = any("teacher_span_vectors" in source.gives for source in sources)
        self._numbers_spans = given and any(SPANS.intersection(term.signals) for term in terms)
        if self._numbers_spans and collection.teacher_view is not collection:
            raise ConfigError(
                "span-contrastive compares sentences of one text, but the teacher's view has other "
                "texts. Omit --teacher-view, or drop span-contrastive."
            )

    def __call__(self, items: Sequence[TrainingExample] | Sequence[TrainingText]) -> dict[str, Any]:
        """Return the inputs of `RetrieverTask.forward`."""
        texts = [item for item in items if isinstance(item, TrainingText)]
        examples = [item for item in items if isinstance(item, TrainingExample)]
        return self._lists(examples) if examples else self._texts(texts)

    def _lists(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        listed = np.concatenate([example.docs for example in examples])
        if self._all_docs is None:
            distinct, positions = np.unique(listed, return_inverse=True)
        else:
            distinct, positions = self._all_docs, listed
        signals = list_signals(examples)
        # (B, N): position of each candidate among the distinct documents
        candidates = torch.zeros(signals["mask"].shape, dtype=torch.long)
        candidates[signals["mask"]] = torch.from_numpy(positions)
        queries = np.array([example.query for example in examples])
        return {
            **self._read(BatchRows(queries, distinct, examples), signals),
            "candidates": candidates,
            "relevant": _sets(example.relevant for example in examples),
            "doubtful": _sets(example.doubtful for example in examples),
        }

    def _texts(self, texts: Sequence[TrainingText]) -> dict[str, Any]:
        queries, docs = (
            np.array([text.row for text in texts if text.side == side], np.int64) for side in SIDES
        )
        lists = torch.zeros(len(queries), 0, dtype=torch.long)
        return {
            **self._read(BatchRows(queries, np.unique(docs)), {"mask": lists.bool()}),
            "candidates": lists,
            "relevant": lists,
            "doubtful": lists,
        }

    def _read(self, batch: BatchRows, signals: dict[str, Tensor]) -> dict[str, Any]:
        """Return the inputs that are texts, and the signals with those of stored sources."""
        docs = self._doc_chunks(batch.docs)
        if self._numbers_spans:
            batch = replace(batch, spans=self._spans(docs, batch.docs))
        for source in self._stored:
            signals = signals | source.of(batch, None)
        inputs: dict[str, Any] = {
            "queries": self._chunks(self._queries.full_texts(batch.queries), "query"),
            "docs": docs,
            "doc_rows": torch.from_numpy(batch.docs),
            "signals": signals,
        }
        if self._live:
            inputs["batch"] = batch
        return inputs

    def _spans(self, chunks: list[dict[str, Any]], rows: Rows) -> list[tuple[int, int]]:
        """Number the sentences of documents in their chunks, and return them."""
        return number_spans(
            side_modules(self._model, "document")[0].tokenizer,
            chunks,
            self._docs.full_texts(rows) if chunks else [],
            prompt=side_prompts(self._model)[1],
            max_tokens=self._limits["document"],
        )

    def _doc_chunks(self, rows: Rows) -> list[dict[str, Any]]:
        """Return the documents to encode: none where their vectors are constants."""
        return self._chunks(self._docs.full_texts(rows), "document") if self._reads_docs else []

    def _chunks(self, texts: Sequence[str], side: Side) -> list[dict[str, Any]]:
        if not texts:
            return []
        batches = side_batches(
            self._model,
            texts,
            side,
            max_tokens=self._limits[side],
            batch_tokens=self._batch_tokens,
        )
        return [
            {"features": features, "positions": torch.from_numpy(positions)}
            for positions, features in batches
        ]


def _sets(sets: Iterable[frozenset[int]]) -> Tensor:
    """Return sets of row numbers as a tensor (B, largest), filled up with -1."""
    rows = [torch.tensor(sorted(numbers), dtype=torch.long) for numbers in sets]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
