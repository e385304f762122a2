"""What the losses of labels share: the labelled pairs of a batch, and one cross-entropy."""

from jaxtyping import Bool, Float
from torch import Tensor, cat

from retrodistill.errors import DataError
from retrodistill.losses.lists import LOWEST


def labelled(
    labels: Bool[Tensor, "B M"], mask: Bool[Tensor, "B M"], loss: str
) -> Bool[Tensor, "B M"]:
    """Tell which documents are a query's positives: labelled ones that may be compared."""
    positive = labels & mask
    if not positive.any():
        raise DataError(
            f"{loss} needs a labelled positive for at least one query of the batch, but there is "
            "none. Check that --split has judgements and that its documents are in the collection."
        )
    return positive


def choice_nll(
    own: Float[Tensor, " P"], others: Float[Tensor, "P M"], counted: Bool[Tensor, "P M"]
) -> Float[Tensor, " P"]:
    """Return -log softmax of each pair's own logit against the counted ones of its row.

    In nats; 0 where nothing is counted.
    """
    return cat([own[:, None], others.masked_fill(~counted, LOWEST)], dim=1).logsumexp(-1) - own
