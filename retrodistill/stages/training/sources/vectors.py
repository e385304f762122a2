"""A teacher's vectors of the documents, and of the queries of a training."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from retrodistill.data.store.lineage import Lineage, own_lineage
from retrodistill.data.store.vectors import doc_vectors
from retrodistill.stages.training.sources import SignalSource

if TYPE_CHECKING:
    from torch import Tensor

    from retrodistill.base.config import TrainSettings
    from retrodistill.base.types import Encoder
    from retrodistill.data.datasets import Texts
    from retrodistill.models.students.batches import BatchRows
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.material import Material
    from retrodistill.stages.training.sampling import Rows


class VectorSource(SignalSource):
    """The vectors of an encoder, which encodes every text once, before the first batch.

    With `queue` in the settings, vectors of that many other documents come with each batch, drawn
    for it alone. Where a batch names sentences of its documents, each is encoded as a document of
    its own, when it is first met.
    """

    name = "vectors"
    about = "a teacher's vectors"
    gives = frozenset(
        {"teacher_query_vectors", "teacher_doc_vectors", "queue_vectors", "teacher_span_vectors"}
    )

    def __init__(self, encoder: "Encoder") -> None:
        self.encoder = encoder
        self.dimension = encoder.dimension
        self._texts: tuple[Texts, Texts] | None = None
        self._query_rows: Rows = np.zeros(0, np.int64)
        self._queue = 0
        self._sentences: dict[int, NDArray[np.float32]] = {}

    @classmethod
    def wraps(cls, value: object) -> bool:
        """Tell whether this is an encoder of queries and documents."""
        return hasattr(value, "encode_queries") and hasattr(value, "encode_docs")

    @classmethod
    def open(cls, name: str, settings: "TrainSettings") -> Self:
        """Return the vectors of a folder's or a hub id's model."""
        from retrodistill.models.students.dense import DenseEncoder

        return cls(
            DenseEncoder(name, max_tokens=settings.vector_tokens, precision=settings.precision)
        )

    @property
    def fingerprint(self) -> str:
        """Hash of all that shapes a vector."""
        return self.encoder.fingerprint

    @property
    def lineage(self) -> Lineage:
        """What the encoder was trained on."""
        return own_lineage(self.encoder)

    def prepare(
        self, material: "Material", terms: "Sequence[LossTerm]", settings: "TrainSettings"
    ) -> None:
        """Note which texts there are to encode."""
        self._texts = material.collection.queries, material.collection.docs
        self._query_rows = material.queries
        self._queue = min(settings.queue, len(material.collection.docs))

    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return `teacher_query_vectors` (B, T), `teacher_doc_vectors` (M, T) and the queue's.

        `teacher_span_vectors` (H, T) are those of the sentences that the batch names.
        """
        import torch

        from retrodistill.models.students.batches import QUEUE_ROWS

        queries, docs = self.vectors(batch.queries, batch.docs)
        signals = {
            "teacher_query_vectors": torch.from_numpy(queries),
            "teacher_doc_vectors": torch.from_numpy(docs),
            "teacher_span_vectors": torch.from_numpy(self._span_vectors(batch)),
        }
        if not self._queue:
            return signals
        # The draw is a function of the batch alone, so that a resumed training has the same.
        draw = np.random.default_rng([*batch.queries.tolist(), *batch.docs.tolist()])
        drawn = draw.choice(len(self._doc_vectors), self._queue, replace=False)
        queued = np.setdiff1d(drawn, batch.docs)
        return signals | {
            QUEUE_ROWS: torch.from_numpy(queued),
            "queue_vectors": torch.from_numpy(self._doc_vectors[queued]),
        }

    def vectors(
        self, queries: "Rows", docs: "Rows"
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return vectors of queries that are trained on, and of documents, given their rows."""
        positions = [self._positions[row] for row in queries.tolist()]
        return self._query_vectors[positions], self._doc_vectors[docs]

    def _span_vectors(self, batch: "BatchRows") -> NDArray[np.float32]:
        """Return the vectors (H, T) of the sentences that a batch names."""
        from retrodistill.models.students.spans import sentences

        if not batch.spans:
            return np.zeros((0, self.encoder.dimension), np.float32)
        assert self._texts is not None
        rows = sorted({int(batch.docs[doc]) for doc, _ in batch.spans} - self._sentences.keys())
        texts = self._texts[1].full_texts(np.array(rows, np.int64)) if rows else []
        parts = [[text[s.start : s.end] for s in sentences(text)] for text in texts]
        if rows:
            vectors = self.encoder.encode_docs([sentence for part in parts for sentence in part])
            ends = np.cumsum([len(part) for part in parts])
            self._sentences |= zip(rows, np.split(vectors, ends[:-1]), strict=True)
        return np.stack([self._sentences[int(batch.docs[doc])][k] for doc, k in batch.spans])

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {row: position for position, row in enumerate(self._query_rows.tolist())}

    @cached_property
    def _doc_vectors(self) -> NDArray[np.float32]:
        assert self._texts is not None
        return doc_vectors(self.encoder, self._texts[1])

    @cached_property
    def _query_vectors(self) -> NDArray[np.float32]:
        assert self._texts is not None
        if not len(self._query_rows):
            return np.zeros((0, self.encoder.dimension), np.float32)
        return self.encoder.encode_queries(self._texts[0].full_texts(self._query_rows))
