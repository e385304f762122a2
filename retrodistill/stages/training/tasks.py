"""A model and its objective as one module whose forward pass returns the loss.

That is the form that transformers.Trainer trains. The body runs in the chosen number type;
scores and losses are float32.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from torch.utils.checkpoint import checkpoint

from retrodistill.models.inference import run_model
from retrodistill.models.students.routes import Side, side_modules
from retrodistill.objectives.objective import Signals
from retrodistill.stages.training.probe import Probe
from retrodistill.stages.training.processes import SharedRows

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

Objective = Callable[[Signals], dict[str, Tensor]]
Chunks = Sequence[dict[str, Any]]
Forward = Callable[..., dict[str, Tensor]]

LISTS = frozenset({"student_scores", "mask", "labels", "trusted_negatives", "log_weights"})
BATCH = frozenset({"batch_scores", "batch_candidates", "batch_labels", "batch_mask"})
VECTORS = frozenset({"query_vectors", "doc_vectors"})
MATCHED = frozenset({"matched_query_vectors", "matched_doc_vectors"})


def without_autocast(forward: Forward) -> Forward:
    """Decorate a forward pass: scores are float32, whatever autocast a launcher puts around it.

    The number type of the body is the task's own.
    """

    @wraps(forward)
    def wide(self: "Task", **batch: Any) -> dict[str, Tensor]:
        with torch.autocast(self.model.device.type, enabled=False):
            return forward(self, **batch)

    return wide


class Task(nn.Module):
    """What all students share: chunks through a body, signals to a loss.

    With `cache_gradients`, a chunk's activations are thrown away and computed again when its
    gradient is due, so that memory is that of one chunk, however large the batch. The gradients
    are those of the whole batch.
    """

    gives: frozenset[str]
    """Signals that a student of this kind has."""

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
        self.losses: dict[str, float] = {}
        """Value of each weighted loss term in the last forward pass, for the log."""
        self.probe: Probe | None = None
        """Set while gradients are measured: it receives outputs of the body, and terms."""

    def each(self, chunks: Chunks, read: Callable[[dict[str, Any]], Tensor]) -> list[Tensor]:
        """Return what `read` makes of the features of each chunk."""
        if self.probe is not None:
            return [self.probe.cut(read(chunk["features"])) for chunk in chunks]
        if self._cache and torch.is_grad_enabled():
            return [checkpoint(read, chunk["features"], use_reentrant=False) for chunk in chunks]
        return [read(chunk["features"]) for chunk in chunks]

    def loss(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sum of the weighted terms as the Trainer wants it."""
        self.losses = {name: float(value.detach()) for name, value in values.items()}
        if self.probe is not None:
            self.probe.measure(values)
        return {"loss": torch.stack(list(values.values())).sum()}


class RetrieverTask(Task):
    """Students that read queries and documents apart; each document of a batch once."""

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
        queue_rows: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch.

        `candidates` (B, N): place of each candidate among the documents. `doc_rows` (M): row of
        each document in the collection. `relevant`, `doubtful` (B, any): rows that are relevant
        to a query, and rows that may be so; filled up with -1. `queue_rows` (Q): rows of the
        documents of `queue_vectors`.
        """
        shared = SharedRows(doc_rows)
        rows = shared.rows
        own = torch.zeros(len(candidates), len(rows), dtype=torch.bool, device=rows.device)
        real = signals["mask"]
        own[real.nonzero()[:, 0], candidates[real]] = True
        known, unsure = _is_among(rows, relevant), _is_among(rows, doubtful)
        labels = known & own
        given = {
            **signals,
            "batch_candidates": own,
            "batch_labels": labels,
            # A relevant document that the query did not draw is neither positive nor negative.
            "batch_mask": labels | ~(known | unsure),
        }
        if "teacher_doc_vectors" in signals:
            given["teacher_doc_vectors"] = shared(signals["teacher_doc_vectors"])
        if queue_rows is not None:  # other processes' documents are compared with already
            given["queue_vectors"] = signals["queue_vectors"][~torch.isin(queue_rows, rows)]
        return self.loss(self.values(queries, docs, candidates, given, shared))

    def values(
        self,
        queries: Chunks,
        docs: Chunks,
        candidates: Tensor,
        given: dict[str, Tensor],
        shared: SharedRows,
    ) -> dict[str, Tensor]:
        """Return each weighted term of the loss."""
        raise NotImplementedError


class BiEncoderTask(RetrieverTask):
    """One vector a text, dense or sparse; scores are inner products.

    With `dims`, the objective's value is its mean over the whole vectors and their first so many
    dimensions, scaled to length 1 again where the model does so. `projection` takes the vectors
    into a teacher's space, and with `matched` they are compared there; `head` scores a query's and
    a document's vector together. Both read a cut vector with zeros in place of the rest.
    """

    gives = LISTS | BATCH | VECTORS | MATCHED | {"pair_scores"}

    def __init__(
        self,
        model: Any,
        objective: Objective,
        dtype: torch.dtype,
        *,
        dims: Sequence[int] = (),
        normalised: bool = False,
        matched: bool = False,
        projection: nn.Module | None = None,
        head: nn.Module | None = None,
        cache_gradients: bool = False,
    ) -> None:
        super().__init__(model, objective, dtype, cache_gradients=cache_gradients)
        self._dims = tuple(dict.fromkeys(dims))
        self._normalised, self._matched = normalised, matched
        self.projection = projection
        self.head = head

    def encode(self, chunks: Chunks, side: Side) -> Tensor:
        """Return the float32 vector of every text, in batch order."""
        if not chunks:  # it takes part in the gradients that other processes wait for
            width = int(self.model.get_embedding_dimension())
            return torch.zeros(0, width, device=self.model.device, requires_grad=True)
        modules = side_modules(self.model, side)

        def read(features: dict[str, Any]) -> Tensor:
            found: Tensor = run_model(modules, features, self.dtype, task=side)[
                "sentence_embedding"
            ]
            return found.float()

        return torch.cat(self.each(chunks, read))[_places(chunks).argsort()]

    def values(
        self,
        queries: Chunks,
        docs: Chunks,
        candidates: Tensor,
        given: dict[str, Tensor],
        shared: SharedRows,
    ) -> dict[str, Tensor]:
        """Return each weighted term, averaged over the dimensions."""
        whole = self.encode(queries, "query"), shared(self.encode(docs, "document"))
        width = whole[1].shape[1]
        terms: dict[str, list[Tensor]] = {}
        for dim in (width, *(dim for dim in self._dims if dim < width)):
            queries_cut, docs_cut = (self._cut(side, dim) for side in whole)
            signals = self._signals(queries_cut, docs_cut, candidates, given, width)
            for name, value in self._objective(Signals(**signals)).items():
                terms.setdefault(name, []).append(value)
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def _cut(self, vectors: Tensor, dim: int) -> Tensor:
        if dim == vectors.shape[1]:
            return vectors
        return normalize(vectors[:, :dim], dim=-1) if self._normalised else vectors[:, :dim]

    def _signals(
        self,
        queries: Tensor,
        docs: Tensor,
        candidates: Tensor,
        given: dict[str, Tensor],
        width: int,
    ) -> dict[str, Tensor]:
        scores = queries @ docs.T
        signals = {
            **given,
            "student_scores": scores.gather(1, candidates),
            "batch_scores": scores,
            "query_vectors": queries,
            "doc_vectors": docs,
        }
        filled = [pad(side, (0, width - side.shape[1])) for side in (queries, docs)]
        if self._matched:
            move = self.projection or nn.Identity()
            signals["matched_query_vectors"], signals["matched_doc_vectors"] = map(move, filled)
        if self.head is not None:
            signals["pair_scores"] = self.head(filled[0][:, None], filled[1][candidates])
        return signals


class LateInteractionTask(RetrieverTask):
    """One vector a token; a score is the sum of each query token's best match (MaxSim).

    With `averaged`, it is their mean.
    """

    gives = LISTS | BATCH

    def __init__(
        self,
        model: Any,
        objective: Objective,
        dtype: torch.dtype,
        *,
        averaged: bool = False,
        cache_gradients: bool = False,
    ) -> None:
        super().__init__(model, objective, dtype, cache_gradients=cache_gradients)
        self._averaged = averaged

    def encode(self, chunks: Chunks, side: Side) -> Tensor:
        """Return float32 token vectors (texts, tokens, dimension), zero where no token counts."""
        modules = side_modules(self.model, side)

        def read(features: dict[str, Any]) -> Tensor:
            found = run_model(modules, features, self.dtype, task=side)
            vectors: Tensor = found["token_embeddings"].float()
            counting: Tensor = found["attention_mask"].bool()
            return vectors * counting[..., None]

        parts = self.each(chunks, read)
        longest = max(part.shape[1] for part in parts)
        parts = [pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts]
        return torch.cat(parts)[_places(chunks).argsort()]

    def values(
        self,
        queries: Chunks,
        docs: Chunks,
        candidates: Tensor,
        given: dict[str, Tensor],
        shared: SharedRows,
    ) -> dict[str, Tensor]:
        """Return each weighted term."""
        query_vectors = self.encode(queries, "query")
        scores = maxsim(query_vectors, shared(self.encode(docs, "document")))
        if self._averaged:
            scores = scores / query_vectors.any(-1).sum(-1, keepdim=True).clamp_min(1)
        lists = scores.gather(1, candidates)
        return self._objective(Signals(**given, student_scores=lists, batch_scores=scores))


class CrossEncoderTask(Task):
    """Scores are the raw logits of the pairs."""

    model: "CrossEncoder"
    gives = LISTS | BATCH

    @without_autocast
    def forward(self, pairs: Chunks, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Read every pair, and lay the scores out as lists."""

        def read(features: dict[str, Any]) -> Tensor:
            found: Tensor = run_model(self.model, features, self.dtype)["scores"]
            return found.float()

        logits = torch.cat(self.each(pairs, read))[_places(pairs).argsort()].reshape(-1)
        scores = logits.new_zeros(signals["mask"].shape).masked_scatter(signals["mask"], logits)
        given = Signals(**signals, student_scores=scores, batch_scores=scores)
        return self.loss(self._objective(given))


def maxsim(queries: Tensor, docs: Tensor) -> Tensor:
    """Return the scores (B, M) of token vectors (B, tokens, D) and (M, tokens, D).

    Rows of zeros are no tokens: such a document token is never a best match, and such a query
    token adds nothing. A document or a query without any token scores 0.
    """
    absent = ~docs.any(-1)
    similarity = torch.einsum("bqd,mtd->bmqt", queries, docs)
    best = similarity.masked_fill(absent[None, :, None], float("-inf")).amax(-1)
    empty = ~queries.any(-1)[:, None] | absent.all(-1)[None, :, None]
    scores: Tensor = best.masked_fill(empty, 0.0).sum(-1)
    return scores


def _places(chunks: Chunks) -> Tensor:
    return torch.cat([chunk["places"] for chunk in chunks])


def _is_among(rows: Tensor, sets: Tensor) -> Tensor:
    """Tell which rows (M) are in each query's set (B, any): shape (B, M)."""
    return (sets[:, :, None] == rows).any(1)
