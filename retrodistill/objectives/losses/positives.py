"""What the losses of labels share: the labelled pairs of a batch, and one cross-entropy."""

from jaxtyping import Bool, Float
from torch import Tensor, cat

from retrodistill.objectives.losses.lists import LOWEST


def labelled_pairs(labels: Bool[Tensor, "B M"], mask: Bool[Tensor, "B M"]) -> tuple[Tensor, Tensor]:
    """Return query and document of each labelled pair that may be compared."""
    rows, columns = (labels & mask).nonzero(as_tuple=True)
    return rows, columns


def choice_nll(
    own: Float[Tensor, " P"], others: Float[Tensor, "P M"], counted: Bool[Tensor, "P M"]
) -> Float[Tensor, " P"]:
    """Return -log softmax of each pair's own logit against the counted ones of its row.

    In nats; 0 where nothing is counted.
    """
    return cat([own[:, None], others.masked_fill(~counted, LOWEST)], dim=1).logsumexp(-1) - own
