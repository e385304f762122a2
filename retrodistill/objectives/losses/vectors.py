"""Helpers of the losses on vectors."""

from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

SHORTEST = 1e-6
"""Length below which a vector counts as 0 and is not scaled, so that its gradient stays small."""


def unit(vectors: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
    """Return the vectors scaled to length 1; vectors of length 0 unchanged."""
    lengths: Tensor = vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / lengths.masked_fill(lengths < SHORTEST, 1.0)
