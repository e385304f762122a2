"""Late-interaction teachers: MaxSim of token vectors, each document encoded once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Pairs, Unit
from retrodistill.models.inference import token_batches

if TYPE_CHECKING:
    import torch

    from retrodistill.data.datasets import Collection
    from retrodistill.models.students.late_interaction import TokenVectors

QUERIES_AT_ONCE = 8192
"""Queries whose token vectors are held; a call with more encodes its documents more than once."""

BLOCK_PAIRS = 64
"""Queries of one document in one matrix."""

BLOCK_TOKENS = 4096
"""Query tokens, padded, whose inner products with their documents' tokens are held."""

Rows = NDArray[np.int64]


class LateInteractionTeacher:
    """MaxSim of a ColBERT-style model: the sum over query tokens of the best inner product.

    A call encodes its queries, then its documents in batches of `batch_tokens`, and scores all
    pairs of a batch at once: the memory is that of the queries' vectors and of one batch. Which
    tokens count (markers, expansion, skipped punctuation) is the model's own choice. Documents
    lose their end at `max_tokens`, or at the model's own limit for documents if that is less;
    queries at the model's own limit. The transformer runs in `precision`, the projection and
    MaxSim in float32. A model made for means over the query's tokens gives these, on the scale
    `cosine`. A document of which no token counts gets the least that MaxSim with vectors of
    length 1 can be (in the library -1e9, from which no margin can be learned).
    """

    unit: Unit = "document"

    def __init__(
        self,
        model: str,
        collection: "Collection | None" = None,
        *,
        max_tokens: int = 256,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        from retrodistill.models.students.late_interaction import LateInteractionEncoder

        if not model:
            raise ConfigError("teacher late-interaction needs a model: late-interaction:FOLDER.")
        self._encoder = LateInteractionEncoder(
            model, max_tokens=max_tokens, batch_tokens=batch_tokens, precision=precision
        )
        self.fingerprint = self._encoder.fingerprint
        self.scale = "cosine" if self._encoder.averaged else "maxsim"

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the MaxSim of each pair."""
        scores = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs.queries), QUERIES_AT_ONCE):
            queries = [query.full_text for query in pairs.queries[start : start + QUERIES_AT_ONCE]]
            rows = pairs.query_rows - start
            places = np.flatnonzero((rows >= 0) & (rows < len(queries)))
            kept, doc_rows = np.unique(pairs.doc_rows[places], return_inverse=True)
            docs = [pairs.docs[row].full_text for row in kept]
            scores[places] = self._score(queries, docs, rows[places], doc_rows)
        return scores

    def _score(
        self, queries: Sequence[str], docs: Sequence[str], query_rows: Rows, doc_rows: Rows
    ) -> NDArray[np.float64]:
        """Return the scores of pairs of rows, of which all documents occur."""
        import torch

        scores = np.empty(len(doc_rows))
        order = np.argsort(doc_rows, kind="stable")
        counts = np.bincount(doc_rows, minlength=len(docs))
        starts = np.cumsum(counts) - counts
        with torch.inference_mode():
            tokens = QueryTokens.of(self._encoder.encode_queries(queries), len(queries))
            for batch in self._encoder.encode_docs(docs):
                own = counts[batch.places]
                places = order[ranges(starts[batch.places], own)]
                scores[places] = maxsim(tokens, query_rows[places], batch, own)
        if self._encoder.averaged:
            scores /= np.maximum(tokens.counts[query_rows], 1)
        return scores


@dataclass(frozen=True, slots=True)
class QueryTokens:
    """The token vectors that count of many queries, one after another."""

    vectors: "torch.Tensor"
    """Shape (tokens, dimension)."""

    starts: Rows
    """The first token of each query."""

    counts: Rows
    """The number of tokens of each query."""

    @classmethod
    def of(cls, batches: "Iterable[TokenVectors]", queries: int) -> "QueryTokens":
        """Return the tokens of all queries, whose batches come in any order."""
        import torch

        starts, counts = np.zeros((2, queries), np.int64)
        vectors, total = [], 0
        for batch in batches:
            own = batch.mask.sum(1).cpu().numpy()
            counts[batch.places] = own
            starts[batch.places] = total + np.cumsum(own) - own
            vectors.append(batch.vectors[batch.mask])
            total += int(own.sum())
        return cls(torch.cat(vectors), starts, counts)


def maxsim(
    queries: QueryTokens, query_rows: Rows, docs: "TokenVectors", pairs: Rows
) -> NDArray[np.float64]:
    """Return the sum over query tokens of the best inner product with a document token.

    `pairs[i]` says how many of the pairs belong to document i of the batch; they stand one after
    another, and `query_rows` names the query of each. The tokens of up to BLOCK_PAIRS queries of
    a document are one matrix, and matrices of similar height are multiplied together. Products
    are float32, sums over query tokens float64. A document of which no token counts gets minus
    the sum of the lengths of the query's vectors.
    """
    import torch

    device = docs.vectors.device
    counts = queries.counts[query_rows]
    tokens = ranges(queries.starts[query_rows], counts)
    blocks = np.flatnonzero(ranges(np.zeros_like(pairs), pairs) % BLOCK_PAIRS == 0)
    block_docs = np.repeat(np.arange(len(pairs)), pairs)[blocks]
    firsts = (np.cumsum(counts) - counts)[blocks]
    heights = np.diff(firsts, append=len(tokens))
    doc_vectors = _without_gaps(docs)
    best = torch.empty(len(tokens), device=device)
    for group in token_batches(heights, BLOCK_TOKENS):
        real = np.arange(heights[group].max()) < heights[group, None]
        places = np.zeros(real.shape, np.int64)
        places[real] = ranges(firsts[group], heights[group])
        left = queries.vectors[torch.from_numpy(tokens[places]).to(device)]
        right = doc_vectors[torch.from_numpy(block_docs[group]).to(device)]
        found = torch.bmm(left, right.mT).amax(-1)
        best[torch.from_numpy(places[real]).to(device)] = found[torch.from_numpy(real).to(device)]
    pair_of_token = np.repeat(np.arange(len(counts)), counts)
    sums = np.bincount(pair_of_token, best.cpu().numpy(), minlength=len(counts))
    scores = np.asarray(sums, np.float64)
    empty = np.repeat(~docs.mask.any(1).cpu().numpy(), pairs)
    if empty.any():
        lengths = queries.vectors.norm(dim=1).cpu().numpy()[tokens]
        scores[empty] = -np.bincount(pair_of_token, lengths, minlength=len(counts))[empty]
    return scores


def ranges(starts: Rows, counts: Rows) -> Rows:
    """Return start, start + 1, ... of each range in turn, `counts` numbers of each."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def _without_gaps(docs: "TokenVectors") -> "torch.Tensor":
    """Return the vectors with each token that does not count replaced by one that does.

    The best inner product stays the same, and needs no mask.
    """
    import torch

    first = docs.mask.int().argmax(1)
    stand_in = docs.vectors[torch.arange(len(first), device=first.device), first]
    return torch.where(docs.mask[..., None], docs.vectors, stand_in[:, None])
