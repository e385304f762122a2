"""Losses that learn from labels alone."""

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.errors import DataError


def contrastive(
    batch_scores: Float[Tensor, "B M"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: float = 0.05,
) -> Float[Tensor, ""]:
    """InfoNCE: each positive of a query against all negatives of the batch.

    Negatives are the query's own hard ones and every document of the other queries that
    `batch_mask` leaves in. A query with several positives in the batch gives a term for each,
    in which its other positives do not count as negatives. In nats, averaged over the
    positives.

    Raises:
        DataError: no query has a positive in the batch.

    Source: van den Oord et al. 2018, arXiv:1807.03748; in-batch negatives as in Karpukhin et
    al. 2020, arXiv:2004.04906.

    """
    positive = batch_labels & batch_mask
    if not positive.any():
        raise DataError(
            "contrastive needs a labelled positive for at least one query of the batch, but there "
            "is none. Check that --split has judgements and that its documents are in the "
            "collection."
        )
    logits = batch_scores / temperature
    negatives = logits.masked_fill(~batch_mask | positive, float("-inf")).logsumexp(
        -1, keepdim=True
    )
    return (logits.logaddexp(negatives) - logits)[positive].mean()
