"""A model and its objective as one module whose forward pass returns the loss.

That is the form that transformers.Trainer trains. The body runs in the chosen number type;
scores and losses are float32.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.batches import QUEUE_ROWS, BatchRows, SignalProvider
from retrodistill.models.students.probe import Probe
from retrodistill.models.students.processes import SameRows, SharedRows, gathered
from retrodistill.models.students.spans import SPANS
from retrodistill.models.students.token_states import (
    ATTENTION,
    STATES,
    TOKEN_VECTORS,
    TOKENS,
    TokenReader,
)
from retrodistill.models.students.towers import Side
from retrodistill.objectives.objective import Signals, bind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retrodistill.base.config import TrainSettings
    from retrodistill.objectives.objective import LossTerm

Objective = Callable[[Signals], dict[str, Tensor]]
Chunks = Sequence[dict[str, Any]]
Forward = Callable[..., dict[str, Tensor]]
Encoded = Tensor | tuple[Tensor, ...]
"""What the scores of texts are computed from: a tensor, or one for each of several heads."""

LISTS = frozenset({"student_scores", "mask", "labels", "trusted_negatives"})
BATCH = frozenset(
    {"batch_scores", "batch_candidates", "batch_labels", "batch_mask", "batch_relevant"}
)
LAYERS = frozenset({"layer_scores"})
VECTORS = frozenset({"query_vectors", "doc_vectors"})
MATCHED = frozenset({"matched_query_vectors", "matched_doc_vectors"})
SECOND = frozenset({"second_query_vectors", "second_doc_vectors"})
TOKEN_STATES = TOKENS | STATES | ATTENTION
STUDENT_SIGNALS = frozenset(
    LISTS
    | BATCH
    | LAYERS
    | VECTORS
    | MATCHED
    | TOKEN_STATES
    | TOKEN_VECTORS
    | SECOND
    | SPANS
    | {"pair_scores"}
)
"""Signals that come from a student and its lists; any other comes from a source."""


def without_autocast(forward: Forward) -> Forward:
    """Decorate a forward pass: scores are float32 under any autocast of a launcher.

    The number type of the body is the task's own.
    """

    @wraps(forward)
    def wide(self: "Task", **batch: Any) -> dict[str, Tensor]:
        with torch.autocast(self.model.device.type, enabled=False):
            return forward(self, **batch)

    return wide


class Task(nn.Module):
    """Base of all tasks: chunks go through a body, signals into a loss.

    With `cache_gradients`, a chunk's activations are dropped and recomputed when its
    gradient is due, so that memory is that of one chunk, however large the batch. The gradients
    are those of the whole batch.
    """

    gives: frozenset[str]
    """Signals that a student of this kind has."""

    reads_apart: bool = False
    """Whether queries and documents are read apart, so that a batch has all their pairs."""

    def __init__(
        self,
        model: Any,
        objective: Objective,
        dtype: torch.dtype,
        *,
        cache_gradients: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self._objective = objective
        self._cache = cache_gradients
        self.projection: nn.Module | None = None
        """Takes the student's vectors into its teacher's space, where a kind has such a layer."""
        self.joint: Any = None
        """Gives the signals of a second model that is trained with this one, by a batch's rows: a
        `JointModel`."""
        self.tokens: TokenReader | None = None
        """Reads each token's states in the body, where the objective asks for them."""
        self.live: tuple[SignalProvider, ...] = ()
        """Sources whose signals are computed in the forward pass."""
        self.losses: dict[str, float] = {}
        """Value of each weighted loss term in the last forward pass, for the log."""
        self.progress: float | None = None
        """Share of a training's steps that are done, where the objective asks for it."""
        self.probe: Probe | None = None
        """Set while gradients are measured: it receives outputs of the body, and terms."""

    @classmethod
    def build(
        cls,
        model: Any,
        terms: "Sequence[LossTerm]",
        settings: "TrainSettings",
        dtype: torch.dtype,
        *,
        teacher_dimension: int | None = None,
    ) -> Self:
        """Return the task of a model under an objective.

        `teacher_dimension` is that of the teacher's vectors, if there are any.

        Raises:
            ConfigError: a setting does not fit the model.

        """
        return cls(model, bind(terms), dtype, cache_gradients=settings.cache_gradients)

    def keep_documents(self, vectors: "NDArray[np.float32]", *, compared: bool) -> None:
        """Take the vectors of all documents (C, D) as constants instead of encoding documents.

        With `compared`, the documents of every batch are all of them.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot keep documents' vectors")

    def score_layers(self) -> None:
        """Score by each layer's vectors as well, for `layer_scores`.

        Raises:
            ConfigError: the model has no vectors of its layers.

        """
        raise ConfigError(
            "layer_scores are those of a bi-encoder's layers: take --student-kind bi-encoder, and "
            "for the teacher bi-encoder:MODEL."
        )

    def read_twice(self) -> None:
        """Read each text a second time, with another dropout, for the signals `SECOND`.

        Raises:
            ConfigError: there is no dropout, so that both passes would give the same.

        """
        raise NotImplementedError

    def scores(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the model's own scores, given the inputs of its forward pass, by signal."""
        raise NotImplementedError

    def each(self, chunks: Chunks, read: Callable[[dict[str, Any]], Tensor]) -> list[Tensor]:
        """Return what `read` makes of the features of each chunk."""
        if self.tokens is None:
            return self._run(chunks, read)
        return self.tokens.keep(chunks, self._run(chunks, self.tokens.reading(read)))

    def _run(self, chunks: Chunks, read: Callable[[dict[str, Any]], Any]) -> list[Any]:
        if self.probe is not None:
            return [self.probe.cut(read(chunk["features"])) for chunk in chunks]
        if self._cache and torch.is_grad_enabled():
            return [checkpoint(read, chunk["features"], use_reentrant=False) for chunk in chunks]
        return [read(chunk["features"]) for chunk in chunks]

    def terms(self, signals: dict[str, Tensor], batch: BatchRows | None) -> dict[str, Tensor]:
        """Return each weighted term of the objective, live sources' signals included.

        `batch` has the rows of the texts; only live sources need it.
        """
        if self.tokens is not None:
            signals = signals | self.tokens.signals()
        for source in self.live:
            assert batch is not None
            signals = signals | source.of(batch, signals)
        if self.progress is not None:
            signals = signals | {"progress": torch.tensor(self.progress)}
        return self._objective(Signals(**signals))

    @property
    def probed(self) -> Sequence[Tensor]:
        """Weights to measure the terms' gradients at; none: measured at outputs of the body."""
        return self.tokens.weights if self.tokens is not None else ()

    def loss(self, values: dict[str, Tensor]) -> dict[str, Any]:
        """Return the sum of the weighted terms in the form of the Trainer, and the terms."""
        self.losses = {name: float(value.detach()) for name, value in values.items()}
        for probe in (self.probe, self.joint and self.joint.task.probe):
            if probe is not None:
                probe.measure(values)
        if self.tokens is not None:
            self.tokens.clear()
        return {"loss": torch.stack(list(values.values())).sum(), "terms": values}


class RetrieverTask(Task):
    """Students that read queries and documents apart; each document of a batch once."""

    reads_apart = True

    compares_all: bool = False
    """Whether the documents of a batch are those of the whole collection, in every process."""

    reads_twice: bool = False
    """Whether each text is read a second time, with another dropout."""

    @without_autocast
    def forward(
        self,
        queries: Chunks,
        docs: Chunks,
        candidates: Tensor,
        doc_rows: Tensor,
        relevant: Tensor,
        doubtful: Tensor,
        signals: dict[str, Tensor],
        batch: BatchRows | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch.

        `candidates` (B, N): position of each candidate among the documents. `doc_rows` (M): row of
        each document in the collection. `relevant`, `doubtful` (B, any): rows that are relevant
        to a query, and rows that may be so; filled up with -1. `batch` is for live sources.
        """
        shared = SameRows(doc_rows) if self.compares_all else SharedRows(doc_rows)
        rows = shared.rows
        # (B, M): which of all processes' documents are a query's own candidates
        listed = torch.zeros(len(candidates), len(rows), dtype=torch.bool, device=rows.device)
        real = signals["mask"]
        listed[real.nonzero()[:, 0], candidates[real]] = True
        labelled, unsure = _is_among(rows, relevant), _is_among(rows, doubtful)
        labels = labelled if self.compares_all else labelled & listed
        inputs = {
            **signals,
            "batch_candidates": listed,
            "batch_labels": labels,
            # A relevant document that the query did not draw is neither positive nor negative.
            "batch_mask": labels | ~(labelled | unsure),
            "batch_relevant": labelled,
        }
        if "teacher_doc_vectors" in signals:
            inputs["teacher_doc_vectors"] = shared(signals["teacher_doc_vectors"])
        if "teacher_query_vectors" in signals:
            inputs["teacher_query_vectors"] = self.of_all(signals["teacher_query_vectors"])
        queue_rows = inputs.pop(QUEUE_ROWS, None)
        if queue_rows is not None:  # other processes' documents are compared with already
            inputs["queue_vectors"] = signals["queue_vectors"][~torch.isin(queue_rows, rows)]
        if self.joint is not None:
            inputs |= self.joint(batch)
        if self.reads_twice:
            second: Any = self.encode(queries, "query"), self.encode_docs(docs, doc_rows)
            inputs["second_query_vectors"] = self.of_all(second[0])
            inputs["second_doc_vectors"] = shared(second[1])
        encoded = self.encode(queries, "query"), _each(shared, self.encode_docs(docs, doc_rows))
        return self.loss(self.values(*encoded, candidates, inputs, batch))

    def scores(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the model's own scores (B, N) and (B, M), of the documents of all processes."""
        shared = SharedRows(inputs["doc_rows"])
        queries = self.encode(inputs["queries"], "query")
        docs = _each(shared, self.encode(inputs["docs"], "document"))
        return self.own_signals(queries, docs, inputs["candidates"])

    def of_all(self, queries: Tensor) -> Tensor:
        """Return rows of queries (B, ...) of all processes, (A, ...), this one's first.

        While gradients are measured all processes read the same batch, and its rows are all.
        """
        return queries if self.probe is not None else gathered(queries)

    def own_signals(self, queries: Any, docs: Any, candidates: Tensor) -> dict[str, Tensor]:
        """Return the model's own signals, from what its scores are computed from."""
        raise NotImplementedError

    def encode(self, chunks: Chunks, side: Side) -> Encoded:
        """Return what scores are computed from, of every text, in batch order."""
        raise NotImplementedError

    def encode_docs(self, docs: Chunks, rows: Tensor) -> Encoded:
        """Return what scores are computed from, of the batch's documents; `rows` (M) are theirs."""
        return self.encode(docs, "document")

    def values(
        self,
        queries: Any,
        docs: Any,
        candidates: Tensor,
        inputs: dict[str, Tensor],
        batch: BatchRows | None,
    ) -> dict[str, Tensor]:
        """Return each weighted term of the loss; `docs` are those of all processes."""
        raise NotImplementedError


def _each(shared: Callable[[Tensor], Tensor], encoded: Encoded) -> Encoded:
    return tuple(map(shared, encoded)) if isinstance(encoded, tuple) else shared(encoded)


def positions(chunks: Chunks) -> Tensor:
    """Return the position in the batch of each text of the chunks."""
    return torch.cat([chunk["positions"] for chunk in chunks])


def _is_among(rows: Tensor, sets: Tensor) -> Tensor:
    """Tell which of distinct rows (M) are in each query's set (B, any): shape (B, M)."""
    among = torch.zeros(len(sets), len(rows), dtype=torch.bool, device=rows.device)
    if not len(rows):
        return among
    ascending, order = rows.sort()
    positions = torch.searchsorted(ascending, sets).clamp(max=len(rows) - 1)
    queries, members = (ascending[positions] == sets).nonzero(as_tuple=True)
    among[queries, order[positions[queries, members]]] = True
    return among
