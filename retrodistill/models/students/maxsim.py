"""MaxSim of many queries with batches of documents, from ragged token vectors."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.models.inference import token_batches

if TYPE_CHECKING:
    import torch

    from retrodistill.models.students.late_interaction import TokenVectors

BLOCK_PAIRS = 64
"""Queries of one document in one matrix."""

BLOCK_TOKENS = 4096
"""Query tokens, padded, whose inner products with their documents' tokens are held."""

Rows = NDArray[np.int64]


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
