"""What the batchers drive: an encoder of texts, a reranker of pairs, an index of vectors."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.models.students.towers import Side

if TYPE_CHECKING:
    from retrodistill.models.indexes.planning import Condition
    from retrodistill.models.inference import Tokens
    from retrodistill.models.students.dense import DenseEncoder

CHUNK = 16
"""Documents of a rerank request that are one input, so that long requests can be interleaved."""

PAIRS = 64
"""Pairs that a reranker is given in one call."""

SEARCHES = 256
"""Vectors that an index is searched for in one call."""


class NotFiniteError(Exception):
    """A model gave NaN or infinity, for a document at a position of an input of several."""

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


class TextEngine:
    """Vectors of texts: a key is a side, a prepared input the tokens of a text."""

    def __init__(self, encoder: "DenseEncoder", *, batch_tokens: int) -> None:
        self.encoder = encoder
        self.budget = batch_tokens
        self._beside: dict[Side, dict[str, Any]] = {}

    def running(self) -> AbstractContextManager[None]:
        """Return what a thread enters before it runs batches."""
        return self.encoder.encoding()

    def prepare(self, key: Side, inputs: Sequence[str]) -> "list[tuple[Tokens, int]]":
        """Tokenise texts, cut at the limit of their side."""
        rows, self._beside[key] = self.encoder.tokenized(inputs, key)
        return [(row, len(row["input_ids"])) for row in rows]

    def run(
        self, key: Side, batch: "Sequence[Tokens]"
    ) -> list[NDArray[np.float32] | NotFiniteError]:
        """Return the vectors, shape (dimension,)."""
        vectors = self.encoder.encode_tokens(batch, self._beside[key], key)
        return [
            vector
            if np.isfinite(vector).all()
            else NotFiniteError("the model gave NaN or infinity for this text")
            for vector in vectors
        ]


class RerankEngine:
    """Scores of documents: an input is a query with up to CHUNK documents of it.

    A teacher whose scores depend on the whole list gets each list whole, and alone.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.whole_lists = teacher.unit == "list"
        self.budget = 1 if self.whole_lists else PAIRS

    def inputs(self, query: str, documents: Sequence[Doc]) -> list[tuple[str, Sequence[Doc]]]:
        """Return the inputs of a request."""
        step = len(documents) if self.whole_lists else CHUNK
        return [
            (query, documents[start : start + step]) for start in range(0, len(documents), step)
        ]

    def running(self) -> AbstractContextManager[None]:
        """Return what a thread enters before it runs batches: nothing."""
        return nullcontext()

    def prepare(
        self, key: None, inputs: Sequence[tuple[str, Sequence[Doc]]]
    ) -> list[tuple[tuple[str, Sequence[Doc]], int]]:
        """Return inputs as they are: a teacher tokenises for itself."""
        return [(single, len(single[1])) for single in inputs]

    def run(
        self, key: None, batch: Sequence[tuple[str, Sequence[Doc]]]
    ) -> list[NDArray[np.float32] | NotFiniteError]:
        """Return the scores of each input's documents."""
        queries = [Doc(query, "", query) for query, docs in batch for _ in docs]
        documents = [doc for _, docs in batch for doc in docs]
        scores = self.teacher.score(Pairs.of(queries, documents))
        ends = np.cumsum([len(docs) for _, docs in batch])[:-1]
        return [
            values
            if np.isfinite(values).all()
            else NotFiniteError(
                "the reranker gave NaN or infinity", int(np.isfinite(values).argmin())
            )
            for values in np.split(scores, ends)
        ]


class SearchEngine:
    """Nearest documents: an input is a vector with its condition, a key is how many to find.

    `search` is that of an index, with one condition a query.
    """

    budget = SEARCHES

    def __init__(self, search: Any) -> None:
        self._search = search

    def running(self) -> AbstractContextManager[None]:
        """Return what a thread enters before it runs batches: nothing."""
        return nullcontext()

    def prepare(
        self, key: int, inputs: "Sequence[tuple[NDArray[np.float32], Condition]]"
    ) -> "list[tuple[tuple[NDArray[np.float32], Condition], int]]":
        """Return inputs as they are."""
        return [(single, 1) for single in inputs]

    def run(
        self, key: int, batch: "Sequence[tuple[NDArray[np.float32], Condition]]"
    ) -> list[tuple[list[str], NDArray[np.float32]]]:
        """Return ids and scores of each query, best first."""
        vectors = np.stack([vector for vector, _ in batch])
        conditions = [condition for _, condition in batch]
        where = None if all(condition is None for condition in conditions) else conditions
        return list(zip(*self._search(vectors, key, where=where), strict=True))
