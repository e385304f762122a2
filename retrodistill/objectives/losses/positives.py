"""Helpers of the contrastive losses: labelled pairs of a batch, and their cross-entropy."""

from jaxtyping import Bool, Float
from torch import Tensor, cat

from retrodistill.objectives.losses.lists import LOWEST


def labelled_pairs(labels: Bool[Tensor, "B M"], mask: Bool[Tensor, "B M"]) -> tuple[Tensor, Tensor]:
    """Return the query rows and document columns of the labelled pairs that may be compared."""
    rows, columns = (labels & mask).nonzero(as_tuple=True)
    return rows, columns


def choice_nll(
    positives: Float[Tensor, " P"], logits: Float[Tensor, "P M"], negative: Bool[Tensor, "P M"]
) -> Float[Tensor, " P"]:
    """Return -log softmax of each pair's positive logit against the negatives of its row.

    In nats; 0 in a row without a negative.
    """
    return (
        cat([positives[:, None], logits.masked_fill(~negative, LOWEST)], dim=1).logsumexp(-1)
        - positives
    )
