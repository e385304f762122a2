"""From the examples of a batch to tensors: each distinct document once, sorted by length."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrodistill.inference import Tokens, padded, token_batches, tokenize
from retrodistill.store.vectors import doc_vectors
from retrodistill.training.examples import Example

if TYPE_CHECKING:
    from retrodistill.datasets import Texts
    from retrodistill.types import Encoder

CPU = torch.device("cpu")


def chunks(tokenizer: Any, rows: Sequence[Tokens], budget: int) -> list[dict[str, Any]]:
    """Return padded chunks of similar length; `places` says where each text belongs."""
    lengths = [len(row["input_ids"]) for row in rows]
    return [
        {
            "features": padded(tokenizer, [rows[place] for place in places], CPU),
            "places": torch.from_numpy(places),
        }
        for places in token_batches(lengths, budget)
    ]


def list_signals(examples: Sequence[Example], *, teacher: bool) -> dict[str, Tensor]:
    """Return `mask`, `labels` and, if there is a teacher, `teacher_scores`: (B, N), padded."""
    width = max(len(example.docs) for example in examples)
    shape = (len(examples), width)
    scores, mask, labels = torch.zeros(shape), torch.zeros(shape).bool(), torch.zeros(shape).bool()
    for row, example in enumerate(examples):
        count = len(example.docs)
        scores[row, :count] = torch.from_numpy(example.teacher_scores)
        labels[row, :count] = torch.from_numpy(example.labels)
        mask[row, :count] = True
    signals = {"mask": mask, "labels": labels}
    return signals | {"teacher_scores": scores} if teacher else signals


class TeacherVectors:
    """A teacher's vectors of all documents, and of the queries of a training."""

    def __init__(
        self, encoder: "Encoder", queries: "Texts", docs: "Texts", query_rows: Sequence[int]
    ) -> None:
        self._docs = doc_vectors(encoder, docs)
        self._places = {row: place for place, row in enumerate(query_rows)}
        self._queries = encoder.encode_queries(queries.full_texts(np.array(query_rows)))

    def of(self, queries: NDArray[np.int64], docs: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return `teacher_query_vectors` (B, D) and `teacher_doc_vectors` (M, D)."""
        places = [self._places[row] for row in queries.tolist()]
        return {
            "teacher_query_vectors": torch.from_numpy(self._queries[places]),
            "teacher_doc_vectors": torch.from_numpy(self._docs[docs]),
        }


class BiEncoderBatch:
    """Collate examples for a bi-encoder: queries in one pass, distinct documents in another."""

    def __init__(
        self,
        queries: "Texts",
        docs: "Texts",
        tokenizer: Any,
        *,
        query_tokens: int,
        doc_tokens: int,
        batch_tokens: int,
        query_prompt: str = "",
        doc_prompt: str = "",
        teacher: bool,
        vectors: "TeacherVectors | None" = None,
    ) -> None:
        self._vectors = vectors
        self._queries, self._docs, self._tokenizer = queries, docs, tokenizer
        self._query_tokens, self._doc_tokens = query_tokens, doc_tokens
        self._budget = batch_tokens
        self._query_prompt, self._doc_prompt = query_prompt, doc_prompt
        self._teacher = teacher

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return the inputs of `BiEncoderTask.forward`."""
        distinct, places = np.unique(
            np.concatenate([example.docs for example in examples]), return_inverse=True
        )
        signals = list_signals(examples, teacher=self._teacher)
        candidates = torch.zeros(signals["mask"].shape, dtype=torch.long)
        candidates[signals["mask"]] = torch.from_numpy(places)
        relevant = torch.zeros((len(examples), len(distinct)), dtype=torch.bool)
        own = torch.zeros_like(relevant)
        for row, example in enumerate(examples):
            relevant[row] = torch.from_numpy(np.isin(distinct, list(example.relevant)))
            own[row, candidates[row][signals["mask"][row]]] = True
        # A relevant document that the query did not draw is neither its positive nor a negative.
        signals |= {"batch_labels": relevant & own, "batch_mask": own | ~relevant}
        query_rows = np.array([example.query for example in examples])
        if self._vectors is not None:
            signals |= self._vectors.of(query_rows, distinct)
        queries = [self._query_prompt + text for text in self._queries.full_texts(query_rows)]
        docs = [self._doc_prompt + text for text in self._docs.full_texts(distinct)]
        query_rows_tokens = tokenize(self._tokenizer, queries, max_tokens=self._query_tokens)
        doc_rows_tokens = tokenize(self._tokenizer, docs, max_tokens=self._doc_tokens)
        return {
            "queries": chunks(self._tokenizer, query_rows_tokens, self._budget),
            "docs": chunks(self._tokenizer, doc_rows_tokens, self._budget),
            "candidates": candidates,
            "signals": signals,
        }


class CrossEncoderBatch:
    """Collate examples for a cross-encoder: one pair of texts a candidate."""

    def __init__(
        self,
        queries: "Texts",
        docs: "Texts",
        tokenizer: Any,
        *,
        max_tokens: int,
        batch_tokens: int,
        teacher: bool,
    ) -> None:
        self._queries, self._docs, self._tokenizer = queries, docs, tokenizer
        self._max_tokens, self._budget = max_tokens, batch_tokens
        self._teacher = teacher

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return the inputs of `CrossEncoderTask.forward`."""
        counts = [len(example.docs) for example in examples]
        queries = self._queries.full_texts(np.array([example.query for example in examples]))
        docs = self._docs.full_texts(np.concatenate([example.docs for example in examples]))
        firsts = [text for text, count in zip(queries, counts, strict=True) for _ in range(count)]
        rows = tokenize(self._tokenizer, firsts, docs, max_tokens=self._max_tokens)
        signals = list_signals(examples, teacher=self._teacher)
        # The batch of a cross-encoder is its own list: other queries' documents were not read.
        signals |= {"batch_labels": signals["labels"], "batch_mask": signals["mask"]}
        return {"pairs": chunks(self._tokenizer, rows, self._budget), "signals": signals}
