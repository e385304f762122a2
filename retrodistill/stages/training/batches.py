"""From the examples of a batch to tensors: each distinct document once, sorted by length."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrodistill.data.store.vectors import doc_vectors
from retrodistill.models.inference import Tokens, padded, token_batches
from retrodistill.models.students.cross_encoder import pair_rows
from retrodistill.models.students.routes import SIDES, Side
from retrodistill.models.students.sides import side_batches
from retrodistill.stages.training.examples import Example, Text

if TYPE_CHECKING:
    from retrodistill.base.types import Encoder
    from retrodistill.data.datasets import Texts

CPU = torch.device("cpu")

Extra = Callable[[Sequence[Example]], dict[str, Tensor]]
"""Gives further signals of a batch's lists, such as preferences."""


def list_signals(examples: Sequence[Example], *, teacher: bool) -> dict[str, Tensor]:
    """Return `mask`, `labels`, `trusted_negatives`, `log_weights`, `teacher_scores` if any.

    All of shape (B, N), padded.
    """
    width = max((len(example.docs) for example in examples), default=0)
    shape = (len(examples), width)
    scores, weights = torch.zeros(2, *shape)
    mask, labels, trusted_negatives = torch.zeros(3, *shape, dtype=torch.bool)
    for row, example in enumerate(examples):
        count = len(example.docs)
        scores[row, :count] = torch.from_numpy(example.teacher_scores)
        weights[row, :count] = torch.from_numpy(example.log_weights)
        labels[row, :count] = torch.from_numpy(example.labels)
        doubtful = np.isin(example.docs, list(example.doubtful))
        trusted_negatives[row, :count] = torch.from_numpy(~doubtful)
        mask[row, :count] = True
    signals = {
        "mask": mask,
        "labels": labels,
        "trusted_negatives": trusted_negatives,
        "log_weights": weights,
    }
    return signals | {"teacher_scores": scores} if teacher else signals


class TeacherVectors:
    """A teacher's vectors of all documents, and of the queries of a training.

    `queue` vectors of other documents come with each batch, drawn for it alone.
    """

    def __init__(
        self,
        encoder: "Encoder",
        queries: "Texts",
        docs: "Texts",
        query_rows: NDArray[np.int64],
        *,
        queue: int = 0,
    ) -> None:
        self.dimension = encoder.dimension
        self._docs = doc_vectors(encoder, docs)
        self._places = {row: place for place, row in enumerate(query_rows.tolist())}
        self._queries = np.zeros((0, encoder.dimension), np.float32)
        if len(query_rows):
            self._queries = encoder.encode_queries(queries.full_texts(query_rows))
        self._queue = min(queue, len(docs))

    def of(self, queries: NDArray[np.int64], docs: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return `teacher_query_vectors` (B, T) and `teacher_doc_vectors` (M, T) of rows."""
        places = [self._places[row] for row in queries.tolist()]
        return {
            "teacher_query_vectors": torch.from_numpy(self._queries[places]),
            "teacher_doc_vectors": torch.from_numpy(self._docs[docs]),
        }

    def queue(
        self, queries: NDArray[np.int64], docs: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor] | None:
        """Return rows (Q) and vectors (Q, T) of documents that are not in the batch."""
        if not self._queue:
            return None
        # The draw is a function of the batch alone, so that a resumed training has the same.
        draw = np.random.default_rng([*queries.tolist(), *docs.tolist()])
        others = np.setdiff1d(draw.choice(len(self._docs), self._queue, replace=False), docs)
        return torch.from_numpy(others), torch.from_numpy(self._docs[others])


class RetrieverBatch:
    """Collate examples for a student that reads queries and documents apart."""

    def __init__(
        self,
        queries: "Texts",
        docs: "Texts",
        model: Any,
        *,
        query_tokens: int,
        doc_tokens: int,
        batch_tokens: int,
        teacher: bool,
        vectors: TeacherVectors | None = None,
        extra: Extra | None = None,
    ) -> None:
        self._queries, self._docs, self._model = queries, docs, model
        self._limits: dict[Side, int] = {"query": query_tokens, "document": doc_tokens}
        self._budget = batch_tokens
        self._teacher, self._vectors, self._extra = teacher, vectors, extra

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return the inputs of `RetrieverTask.forward`."""
        distinct, places = np.unique(
            np.concatenate([example.docs for example in examples]), return_inverse=True
        )
        signals = list_signals(examples, teacher=self._teacher)
        candidates = torch.zeros(signals["mask"].shape, dtype=torch.long)
        candidates[signals["mask"]] = torch.from_numpy(places)
        if self._extra is not None:
            signals |= self._extra(examples)
        return {
            **self.read(np.array([example.query for example in examples]), distinct, signals),
            "candidates": candidates,
            "relevant": _sets(example.relevant for example in examples),
            "doubtful": _sets(example.doubtful for example in examples),
        }

    def read(
        self, queries: NDArray[np.int64], docs: NDArray[np.int64], signals: dict[str, Tensor]
    ) -> dict[str, Any]:
        """Return the inputs that are texts of these rows, and signals with the teacher's vectors.

        `queue_rows` are the rows of the documents of `queue_vectors`, if there are any.
        """
        queue = None
        if self._vectors is not None:
            signals = signals | self._vectors.of(queries, docs)
            queue = self._vectors.queue(queries, docs)
        inputs = {
            "queries": self._chunks(self._queries.full_texts(queries), "query"),
            "docs": self._chunks(self._docs.full_texts(docs), "document"),
            "doc_rows": torch.from_numpy(docs),
            "signals": signals,
        }
        if queue is not None:
            inputs["queue_rows"], signals["queue_vectors"] = queue
        return inputs

    def _chunks(self, texts: Sequence[str], side: Side) -> list[dict[str, Any]]:
        if not texts:
            return []
        batches = side_batches(
            self._model, texts, side, max_tokens=self._limits[side], batch_tokens=self._budget
        )
        return [
            {"features": features, "places": torch.from_numpy(places)}
            for places, features in batches
        ]


class TextBatch(RetrieverBatch):
    """Collate texts that stand alone: no query has a list."""

    def __call__(self, texts: Sequence[Text]) -> dict[str, Any]:  # type: ignore[override]
        """Return the inputs of `RetrieverTask.forward`."""
        queries, docs = (
            np.array([row for side, row in texts if side == wanted], np.int64) for wanted in SIDES
        )
        lists = torch.zeros(len(queries), 0, dtype=torch.long)
        return {
            **self.read(queries, np.unique(docs), {"mask": lists.bool()}),
            "candidates": lists,
            "relevant": lists,
            "doubtful": lists,
        }


class CrossEncoderBatch:
    """Collate examples for a cross-encoder: one pair of texts a candidate."""

    def __init__(
        self,
        queries: "Texts",
        docs: "Texts",
        model: Any,
        *,
        max_tokens: int,
        batch_tokens: int,
        teacher: bool,
        extra: Extra | None = None,
    ) -> None:
        self._queries, self._docs, self._model = queries, docs, model
        self._max_tokens, self._budget = max_tokens, batch_tokens
        self._teacher, self._extra = teacher, extra

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return the inputs of `CrossEncoderTask.forward`."""
        counts = [len(example.docs) for example in examples]
        queries = self._queries.full_texts(np.array([example.query for example in examples]))
        docs = self._docs.full_texts(np.concatenate([example.docs for example in examples]))
        firsts = [text for text, count in zip(queries, counts, strict=True) for _ in range(count)]
        rows, beside = pair_rows(self._model, firsts, docs, max_tokens=self._max_tokens)
        signals = list_signals(examples, teacher=self._teacher)
        if self._extra is not None:
            signals |= self._extra(examples)
        # The batch of a cross-encoder is its own list: other queries' documents were not read.
        signals |= {
            "batch_candidates": signals["mask"],
            "batch_labels": signals["labels"],
            "batch_mask": signals["labels"] | signals["trusted_negatives"],
        }
        return {"pairs": self._chunks(rows, beside), "signals": signals}

    def _chunks(self, rows: Sequence[Tokens], beside: dict[str, Any]) -> list[dict[str, Any]]:
        lengths, tokenizer = [len(row["input_ids"]) for row in rows], self._model.tokenizer
        return [
            {
                "features": padded(tokenizer, [rows[place] for place in places], CPU) | beside,
                "places": torch.from_numpy(places),
            }
            for places in token_batches(lengths, self._budget)
        ]


def _sets(sets: Iterable[frozenset[int]]) -> Tensor:
    """Return sets of row numbers as a tensor (B, largest), filled up with -1."""
    rows = [torch.tensor(sorted(numbers), dtype=torch.long) for numbers in sets]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
