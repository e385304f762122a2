"""Losses of meta-learning: what weights that were adapted to one part of a batch teach."""

from jaxtyping import Float
from torch import Tensor

from retrodistill.objectives.losses.inputs import loss


@loss(zero_at={"student_loss": "teacher_loss"})
def transfer_mse(
    student_loss: Float[Tensor, ""], teacher_loss: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Squared difference of the losses of two transfers on the texts that they share.

        (loss of the weights as they are - loss of weights adapted to the part before)^2

    Both are of the same texts: the queries that the first transfer was measured on, and that the
    second adapts to. In squared units of the objective's other terms. A gradient flows into both
    sides, so neither is a fixed target: where the adapted weights do better, it trains the weights
    as they are to do as well, and the adapted ones to do worse; where they do no better, it is 0.

    Source: M'hamdi et al. 2023, arXiv:2309.08185 (MAML-Align), as in its published code.

    """
    return (student_loss - teacher_loss).square()
