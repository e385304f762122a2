"""What the losses on vectors share."""

from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

SHORTEST = 1e-6
"""Length below which a vector has no direction: it is not scaled, so its gradient stays small."""


def unit(vectors: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
    """Return the vectors scaled to length 1; those without a direction as they are."""
    lengths: Tensor = vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / lengths.masked_fill(lengths < SHORTEST, 1.0)
