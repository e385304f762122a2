"""Losses on what a body makes of each token: hidden states, and the relations of its attention."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average


@loss(zero_at={"student_states": "teacher_states"})
def hidden_mse(
    student_states: Float[Tensor, "J X W U"],
    teacher_states: Float[Tensor, "J X W U"],
    token_mask: Bool[Tensor, "X W"],
) -> Float[Tensor, ""]:
    """Squared error between the student's and the teacher's hidden states of the same tokens.

    J pairs of layers, X texts of up to W tokens, U dimensions of the teacher. The student's states
    come through a learned projection where its hidden size differs. A mean over dimensions, over
    the real tokens of a text, then over texts and layers, so that a long text weighs no more than
    a short one; in squared units of the states.

    Source: the hidden-state term of TinyBERT, Jiao et al. 2019, arXiv:1909.10351 (from memory),
    which takes the mean over all tokens, padding included.

    """
    padding = ~token_mask[..., None]
    gaps = student_states.masked_fill(padding, 0.0) - teacher_states.masked_fill(padding, 0.0)
    return _over_texts(gaps.square().mean(-1), token_mask)


@loss(zero_at={"attention_vectors": "teacher_attention_vectors"})
def attention_relations(
    attention_vectors: Float[Tensor, "R X W V"],
    teacher_attention_vectors: Float[Tensor, "R X W Z"],
    token_mask: Bool[Tensor, "X W"],
    *,
    heads: int = 8,
) -> Float[Tensor, ""]:
    """KL between how strongly tokens relate in the teacher's and in the student's attention.

    The relations of a token are the softmax over the text's tokens of A A^T / sqrt(d), for the
    queries, the keys and the values A (the R parts) of one attention layer, split into `heads`
    parts of d dimensions each, whatever number of heads the models have. KL(teacher || student) in
    nats, a mean over the real tokens of a text, then over texts, heads and parts. Student and
    teacher may differ in width and in heads; no projection is learned.

    Raises:
        ConfigError: a width is not a multiple of `heads`.

    Source: MiniLMv2, Wang et al. 2020, arXiv:2012.15828 (from memory, unverified), which sums the
    three parts and has more heads than the models; 8 is ours, a divisor of the usual widths.

    """
    student = _relations(attention_vectors, token_mask, heads, "student")
    teacher = _relations(teacher_attention_vectors, token_mask, heads, "teacher")
    pairs = token_mask[:, None, :, None] & token_mask[:, None, None, :]
    gaps = (teacher - student).masked_fill(~pairs, 0.0)
    kl = (teacher.exp() * gaps).sum(-1)  # (R, X, heads, W)
    return _over_texts(kl.mean(2), token_mask)


def _relations(
    vectors: Float[Tensor, "R X W V"], mask: Bool[Tensor, "X W"], heads: int, side: str
) -> Float[Tensor, "R X H W W"]:
    """Return each token's log-probabilities over the tokens of its text, (R, X, heads, W, W)."""
    width = vectors.shape[-1]
    if heads < 1 or width % heads:
        raise ConfigError(
            f"attention-relations: the {side}'s width {width} is not a multiple of heads={heads}. "
            "Set attention-relations(heads=...) to a divisor of both widths."
        )
    size = width // heads
    # (R, X, heads, W, d)
    real = vectors.masked_fill(~mask[..., None], 0.0)
    parts = real.reshape(*real.shape[:-1], heads, size).transpose(2, 3)
    products = parts @ parts.mT / size**0.5
    lowest = torch.finfo(products.dtype).min
    relations: Tensor = products.masked_fill(~mask[:, None, None, :], lowest).log_softmax(-1)
    return relations


def _over_texts(values: Float[Tensor, "P X W"], mask: Bool[Tensor, "X W"]) -> Float[Tensor, ""]:
    """Return the mean over the real tokens of each text that has some, then over the rest."""
    counts = mask.sum(-1)
    sums = values.masked_fill(~mask, 0.0).sum(-1)
    return average((sums / counts.clamp(min=1))[:, counts > 0])
