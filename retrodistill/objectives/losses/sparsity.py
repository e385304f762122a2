"""Regularisers of sparse vectors."""

from jaxtyping import Float
from torch import Tensor

from retrodistill.objectives.losses.inputs import loss


@loss
def flops(
    query_vectors: Float[Tensor, "A D"],
    doc_vectors: Float[Tensor, "M D"],
    *,
    query_weight: float = 1.0,
    doc_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """FLOPS regulariser: a smooth estimate of the cost of searching an inverted index.

        query_weight sum over d of (mean over queries of |q_d|)^2
          + doc_weight sum over d of (mean over documents of |p_d|)^2

    A dimension d that many texts of the batch use costs more than a rare one, so the vectors
    become sparse and their entries spread evenly. Meant as a small term beside a ranking loss:
    alone, its minimum is the zero vector. In squared units of the activations; its size grows
    with the number of dimensions in use, not with the batch.

    Source: Paria et al. 2020, arXiv:2004.05665; one weight each for queries and documents as in
    SPLADE, Formal et al. 2021, arXiv:2109.10086. Defaults unverified.

    """
    queries = (query_vectors.abs().sum(0) / max(len(query_vectors), 1)).square().sum()
    docs = (doc_vectors.abs().sum(0) / max(len(doc_vectors), 1)).square().sum()
    return query_weight * queries + doc_weight * docs
