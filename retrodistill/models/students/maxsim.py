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
            sizes = batch.mask.sum(1).cpu().numpy()
            counts[batch.positions] = sizes
            starts[batch.positions] = total + np.cumsum(sizes) - sizes
            vectors.append(batch.vectors[batch.mask])
            total += int(sizes.sum())
        return cls(torch.cat(vectors), starts, counts)


def maxsim(
    queries: QueryTokens, query_rows: Rows, docs: "TokenVectors", pairs: Rows
) -> NDArray[np.float64]:
    """Return the sum over query tokens of the best inner product with a document token.

    `pairs[i]` is the number of pairs of document i of the batch; the pairs of a document follow
    one another, and `query_rows` names the query of each. The tokens of up to BLOCK_PAIRS queries
    of a document are one matrix, and matrices of similar height are multiplied together. Products
    are float32, sums over query tokens float64. A document of which no token counts gets minus
    the sum of the lengths of the query's vectors.
    """
    import torch

    device = docs.vectors.device
    # The query tokens of all pairs, one after another, cut into blocks of pairs of one document.
    counts = queries.counts[query_rows]
    tokens = ranges(queries.starts[query_rows], counts)
    blocks = np.flatnonzero(ranges(np.zeros_like(pairs), pairs) % BLOCK_PAIRS == 0)
    block_docs = np.repeat(np.arange(len(pairs)), pairs)[blocks]
    firsts = (np.cumsum(counts) - counts)[blocks]
    heights = np.diff(firsts, append=len(tokens))
    # The best match of each query token, blocks of similar height together.
    doc_vectors = _without_gaps(docs)
    best = torch.empty(len(tokens), device=device)
    for group in token_batches(heights, BLOCK_TOKENS):
        # (blocks, tokens): which of the padded positions are tokens, and which tokens they are
        real = np.arange(heights[group].max()) < heights[group, None]
        positions = np.zeros(real.shape, np.int64)
        positions[real] = ranges(firsts[group], heights[group])
        group_queries = queries.vectors[torch.from_numpy(tokens[positions]).to(device)]
        group_docs = doc_vectors[torch.from_numpy(block_docs[group]).to(device)]
        group_best = torch.bmm(group_queries, group_docs.mT).amax(-1)
        written = torch.from_numpy(positions[real]).to(device)
        best[written] = group_best[torch.from_numpy(real).to(device)]
    # Their sums, pair by pair.
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

    earliest = docs.mask.int().argmax(1)
    stand_in = docs.vectors[torch.arange(len(earliest), device=earliest.device), earliest]
    return torch.where(docs.mask[..., None], docs.vectors, stand_in[:, None])
