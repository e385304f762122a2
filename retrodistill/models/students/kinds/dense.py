"""Bi-encoders: a query and a document have one vector each."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from retrodistill.base.errors import ConfigError
from retrodistill.models.inference import run_model
from retrodistill.models.students.batches import BatchRows, RetrieverBatch
from retrodistill.models.students.dense import DenseEncoder, load_bi_encoder
from retrodistill.models.students.kinds import CardText, StudentKind
from retrodistill.models.students.layer_vectors import count_layers, layer_vectors
from retrodistill.models.students.pair_head import PairHead
from retrodistill.models.students.tasks import (
    BATCH,
    LAYERS,
    LISTS,
    MATCHED,
    SECOND,
    TOKEN_STATES,
    VECTORS,
    Chunks,
    Objective,
    RetrieverTask,
    positions,
)
from retrodistill.models.students.towers import Side, is_normalised, side_modules
from retrodistill.objectives.objective import bind

if TYPE_CHECKING:
    from retrodistill.base.config import TrainSettings
    from retrodistill.objectives.objective import LossTerm


OF_DOCUMENTS = frozenset({"doc_vectors", "batch_relevant"})
"""Signals that need no query to be read. An objective of any other has its queries encoded."""


class BiEncoderTask(RetrieverTask):
    """One vector a text, dense or sparse; scores are inner products.

    With `dims`, the objective's value is its mean over the whole vectors and their first
    dimensions, scaled to length 1 again where the model does so. `projection` takes the vectors
    into a teacher's space, and with `matched` they are compared there; `head` scores a query's and
    a document's vector together. Both read a cut vector with zeros in place of the rest. Queries
    are not encoded where the objective looks at documents alone: their vectors are 0.
    """

    gives = frozenset(
        LISTS | BATCH | LAYERS | VECTORS | MATCHED | TOKEN_STATES | SECOND | {"pair_scores"}
    )

    def __init__(
        self,
        model: Any,
        objective: Objective,
        dtype: torch.dtype,
        *,
        dims: Sequence[int] = (),
        matched: bool = False,
        projection: nn.Module | None = None,
        reads_queries: bool = True,
        cache_gradients: bool = False,
    ) -> None:
        super().__init__(model, objective, dtype, cache_gradients=cache_gradients)
        self._dims = tuple(dict.fromkeys(dims))
        self._normalised, self._matched = is_normalised(model), matched
        self._reads_queries = reads_queries
        self.projection = projection
        self.head: nn.Module | None = None
        self._layers = 0
        """Number of layers whose vectors are compared as well; 0: of the last alone."""
        self.register_buffer("doc_vectors", None, persistent=False)
        self.doc_vectors: Tensor | None

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
        """Return the task, with the layers that its objective needs, new and random."""
        dimension = int(model.get_embedding_dimension())
        if settings.dims and max(settings.dims) > dimension:
            raise ConfigError(f"--dims {max(settings.dims)}: the student has {dimension}.")
        signals = {signal for term in terms for signal in term.signals}
        matched = bool(signals & MATCHED)
        projection = None
        if matched and teacher_dimension not in (None, dimension):
            projection = nn.Linear(dimension, teacher_dimension, bias=False)
            nn.init.orthogonal_(projection.weight)
        task = cls(
            model,
            bind(terms),
            dtype,
            dims=settings.dims,
            matched=matched,
            projection=projection,
            # a joint teacher has no terms of its own: its scores are read by the student's
            reads_queries=not terms or not signals <= OF_DOCUMENTS,
            cache_gradients=settings.cache_gradients,
        )
        if "pair_scores" in signals:
            task.head = PairHead(dimension)
        return task

    def encode(self, chunks: Chunks, side: Side) -> Tensor:
        """Return the float32 vector of every text, in batch order: (texts, D).

        Where layers are compared, those of each layer: (texts, L, D).
        """
        if not chunks:  # it takes part in the gradients that other processes wait for
            width = int(self.model.get_embedding_dimension())
            shape = (0, self._layers, width) if self._layers else (0, width)
            tower = nn.ModuleList(side_modules(self.model, side))
            trained = any(weight.requires_grad for weight in tower.parameters())
            return torch.zeros(shape, device=self.model.device, requires_grad=trained)
        if side == "query" and not self._reads_queries:
            count, width = len(positions(chunks)), int(self.model.get_embedding_dimension())
            shape = (count, self._layers, width) if self._layers else (count, width)
            return torch.zeros(shape, device=self.model.device)
        modules = side_modules(self.model, side)

        def read(features: dict[str, Any]) -> Tensor:
            if self._layers:
                return layer_vectors(modules, features, self.dtype, task=side)
            outputs = run_model(modules, features, self.dtype, task=side)
            vectors: Tensor = outputs["sentence_embedding"].float()
            return vectors

        return torch.cat(self.each(chunks, read))[positions(chunks).argsort()]

    def keep_documents(self, vectors: NDArray[np.float32], *, compared: bool) -> None:
        """Take the vectors of all documents (C, D) as constants."""
        self.doc_vectors = torch.from_numpy(vectors)
        self.compares_all = compared

    def encode_docs(self, docs: Chunks, rows: Tensor) -> Tensor:
        """Return the vectors of the batch's documents; `rows` (M) are theirs in the collection."""
        if self.doc_vectors is None:
            return self.encode(docs, "document")
        return self.doc_vectors if self.compares_all else self.doc_vectors[rows]

    def values(
        self,
        queries: Tensor,
        docs: Tensor,
        candidates: Tensor,
        inputs: dict[str, Tensor],
        batch: BatchRows | None,
    ) -> dict[str, Tensor]:
        """Return each weighted term, averaged over the dimensions."""
        inputs = inputs | self._layer_signals(queries, docs)
        queries, docs = self._last(queries), self._last(docs)
        every = self.of_all(queries)
        again = {name: self._last(inputs.pop(name)) for name in SECOND & inputs.keys()}
        width = docs.shape[1]
        terms: dict[str, list[Tensor]] = {}
        for dim in (width, *(dim for dim in self._dims if dim < width)):
            cut = self._cut(queries, dim), self._cut(every, dim), self._cut(docs, dim)
            signals = inputs | self._signals(*cut, candidates, width)
            signals |= {name: self._cut(vectors, dim) for name, vectors in again.items()}
            for name, value in self.terms(signals, batch).items():
                terms.setdefault(name, []).append(value)
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def read_twice(self) -> None:
        """Read each text a second time, with another dropout."""
        if self.doc_vectors is not None:
            raise ConfigError(
                "simcse compares two readings of each text, but --freeze document keeps the "
                "documents' vectors. Drop --freeze."
            )
        layers = [*self.model.modules()]
        shares = [layer.p for layer in layers if isinstance(layer, nn.Dropout)]
        shares += [getattr(layer, "dropout_prob", 0) for layer in layers]
        if not any(shares):
            raise ConfigError(
                "simcse compares two readings of each text that differ by dropout, and this "
                "student has none: both would be the same. Set --dropout 0.1."
            )
        self.reads_twice = True

    def score_layers(self) -> None:
        """Compare each layer's vectors as well, pooled as those of the last layer are."""
        layers = count_layers(self.model)
        if layers < 2:
            raise ConfigError(
                "layer_scores are compared below the last layer, but a model has one alone: take "
                "models of two layers and more, or drop layer-kl."
            )
        self._layers = layers

    def own_signals(self, queries: Tensor, docs: Tensor, candidates: Tensor) -> dict[str, Tensor]:
        """Return scores by the whole vectors, and where layers are compared by those of each."""
        scores = self._last(queries) @ self._last(docs).T  # (B, M)
        lists = {"student_scores": scores.gather(1, candidates), "batch_scores": scores}
        return lists | self._layer_signals(queries, docs)

    def _last(self, vectors: Tensor) -> Tensor:
        """Return the vectors (texts, D) of the model, of those of its layers if there are such."""
        return vectors[:, -1] if self._layers else vectors

    def _layer_signals(self, queries: Tensor, docs: Tensor) -> dict[str, Tensor]:
        """Return the scores of each layer (L, B, M), where layers are compared."""
        if not self._layers:
            return {}
        return {"layer_scores": torch.einsum("bld,mld->lbm", queries, docs)}

    def _cut(self, vectors: Tensor, dim: int) -> Tensor:
        if dim == vectors.shape[1]:
            return vectors
        return normalize(vectors[:, :dim], dim=-1) if self._normalised else vectors[:, :dim]

    def _signals(
        self, queries: Tensor, every: Tensor, docs: Tensor, candidates: Tensor, width: int
    ) -> dict[str, Tensor]:
        """Return the student's own signals; `width` is the dimension of whole vectors.

        `every` (A, D) are the queries of all processes.
        """
        scores = queries @ docs.T  # (B, M)
        signals = {
            "student_scores": scores.gather(1, candidates),
            "batch_scores": scores,
            "query_vectors": every,
            "doc_vectors": docs,
        }
        filled = [pad(vectors, (0, width - vectors.shape[1])) for vectors in (every, docs)]
        if self._matched:
            move = self.projection or nn.Identity()
            signals["matched_query_vectors"], signals["matched_doc_vectors"] = map(move, filled)
        if self.head is not None:
            # (B, 1, D) with (B, N, D)
            own = filled[0][: len(queries), None]
            signals["pair_scores"] = self.head(own, filled[1][candidates])
        return signals


def doc_scorer(
    model: Any, queries: Sequence[str], **options: Any
) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return what scores documents' texts for these queries, by inner products."""
    encoder = DenseEncoder(model, **options)
    vectors = encoder.encode_queries(queries)
    return lambda texts: vectors @ encoder.encode_docs(texts).T


KIND = StudentKind(
    name="bi-encoder",
    noun="bi-encoder",
    about="It gives a query and a document one vector each; their inner product says how well "
    "they fit.",
    saved_as=("SentenceTransformer",),
    load=load_bi_encoder,
    task=BiEncoderTask,
    batches=RetrieverBatch,
    teacher="bi-encoder",
    retriever="dense",
    doc_scorer=doc_scorer,
    encoder=DenseEncoder,
    gives_cosines=is_normalised,
    settings=frozenset(
        {
            "width",
            "prune_vocabulary",
            "pooling",
            "query_prompt",
            "doc_prompt",
            "doc_student",
            "freeze",
            "dims",
        }
    ),
    card=CardText(
        library_class="SentenceTransformer",
        pipeline="sentence-similarity",
        tags=("sentence-similarity", "feature-extraction", "dense"),
        usage="model.encode_query([{query}]) @ model.encode_document([{doc}]).T",
    ),
)
