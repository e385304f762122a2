"""Losses on the token vectors of late-interaction models."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average
from retrodistill.objectives.losses.vectors import unit


@loss(zero_at={"token_vectors": "teacher_token_vectors"})
def token_graph(
    token_vectors: Float[Tensor, "X W P"],
    teacher_token_vectors: Float[Tensor, "X W S"],
    scored_tokens: Bool[Tensor, "X W"],
) -> Float[Tensor, ""]:
    """Token relation graph: how near each two tokens of a text are, as in the teacher.

        mean over texts of  mean over i != j of (cos(s_i, s_j) - cos(t_i, t_j))^2

    The nodes of a text's graph are the tokens that MaxSim compares, s_i the student's vector and
    t_i the teacher's of the same token: no padding, and no token that the student skips. Student
    and teacher may differ in width; no projection is learned. Every text of the batch has a graph
    of its own, a long one no more weight than a short one, and one of a single token none. It
    says nothing of queries against documents: both sides may be turned against each other at no
    cost, so add it to a loss of scores. Memory grows with texts times the square of the longest.
    In squared units of a cosine, from 0 to 4.

    Source: the graphs within an instance of Zhang et al. 2023, "Knowledge Distillation via
    Token-level Relationship Graph", arXiv:2306.12442 (from its abstract): there of patches of
    images, beside graphs across instances. The squared error of cosines is ours.

    """
    pairs = scored_tokens[:, :, None] & scored_tokens[:, None, :]
    pairs = pairs & ~torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)
    student = _cosines(token_vectors, scored_tokens)
    teacher = _cosines(teacher_token_vectors, scored_tokens)
    gaps = (student - teacher).square().masked_fill(~pairs, 0.0).sum((1, 2))
    counts = pairs.sum((1, 2))
    return average((gaps / counts.clamp(min=1))[counts > 0])


def _cosines(vectors: Float[Tensor, "X W d"], mask: Bool[Tensor, "X W"]) -> Float[Tensor, "X W W"]:
    real = unit(vectors.masked_fill(~mask[..., None], 0.0))
    return real @ real.mT
