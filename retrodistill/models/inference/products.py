"""Attention on a CPU by plain products, a few texts at a time.

The weights of a block of texts, which are the square of their lengths, stay in the processor's
cache, so that the softmax between the two products reads no memory. Gradients form the weights
again, and draw dropout's choices again from one seed: between forward and backward pass nothing of
that size is kept.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import Tensor

    from retrodistill.models.inference.unpadded import Row

BLOCK = 4 << 20
"""Bytes of the weights that are formed at once, where a single text does not take more."""

CHANCES = 1 << 16
"""Dropout's probability is a multiple of one over this."""

Block = tuple[int, int, int]
"""First token, texts, and tokens of each: texts of one length that stand one after the other."""


def attention_by_products(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    lengths: Sequence[int],
    *,
    mask: "Tensor | None" = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> "Tensor":
    """Return attention within each text, (N, H, D), of tensors (N, H, D).

    N are the tokens of all texts, whose `lengths` are given, H the heads. `mask` is added to the
    weights, (B, 1, 1 or T, T) where all B texts have T tokens. Gradients are of first order.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    seed = int(torch.randint(2**62, ())) if dropout else None
    blocks = tuple(_blocks(lengths, query.shape[1] * query.element_size()))
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, mask, blocks, (dropout, seed), scale
    )
    return result


def padded_products(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    mask: "Tensor | None",
    dropout: float,
    scale: float | None,
) -> "Tensor":
    """Return attention (B, T, H, D) of tensors (B, H, T, D); `mask` is boolean or added."""
    batch, _, length, _ = query.shape
    if mask is not None:
        if not mask.stride(2):
            mask = mask[:, :, :1]  # the same for each token that looks
        if mask.dtype == torch.bool:
            # half of the lowest number, to which a product can be added
            added = torch.zeros((), dtype=query.dtype)
            mask = torch.where(mask, added, torch.finfo(query.dtype).min / 2)
    q, k, v = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
    lengths = [length] * batch
    found = attention_by_products(q, k, v, lengths, mask=mask, dropout=dropout, scale=scale)
    return found.view(batch, length, *found.shape[1:])


def row_products(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    row: "Row",
    dropout: float,
    scale: float | None,
) -> "Tensor":
    """Return attention within each text, (1, N, H, D), of tensors (1, H, N, D)."""
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    return attention_by_products(q, k, v, row.lengths, dropout=dropout, scale=scale)[None]


def _blocks(lengths: Sequence[int], size: int) -> Iterator[Block]:
    """Yield blocks of texts; `size` is the bytes of a pair of tokens in all heads."""
    start = first = 0
    while first < len(lengths):
        length = lengths[first]
        most = max(1, BLOCK // (size * length * length))
        texts = 1
        while texts < most and first + texts < len(lengths) and lengths[first + texts] == length:
            texts += 1
        yield start, texts, length
        start, first = start + texts * length, first + texts


class _Attention(torch.autograd.Function):
    """Softmax of scaled products, dropout, products with the values; block by block."""

    @staticmethod
    def forward(
        ctx: Any,
        query: "Tensor",
        key: "Tensor",
        value: "Tensor",
        mask: "Tensor | None",
        blocks: tuple[Block, ...],
        chance: tuple[float, int | None],
        scale: float,
    ) -> "Tensor":
        found = torch.empty_like(value, memory_format=torch.contiguous_format)
        dropped = _Dropout(*chance)
        first = 0
        for block in blocks:
            queries, keys, values = (_heads(each, block) for each in (query, key, value))
            weights = _weights(queries * scale, keys, _rows(mask, first, block))
            _put(found, block, torch.bmm(dropped.of(weights), values).mul_(dropped.scale))
            first += block[1]
        ctx.save_for_backward(query, key, value, mask, found)
        ctx.rest = blocks, chance, scale
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: "Tensor") -> tuple[Any, ...]:
        query, key, value, mask, found = ctx.saved_tensors
        blocks, chance, scale = ctx.rest
        gradients = [torch.empty_like(found) for _ in range(3)]
        dropped = _Dropout(*chance)
        first = 0
        for block in blocks:
            # The weights once more, and what the loss says of the block's output.
            queries, keys, values = (_heads(each, block) for each in (query, key, value))
            queries *= scale
            weights = _weights(queries, keys, _rows(mask, first, block))
            above, output = (_heads(each, block) for each in (gradient, found))
            # The softmax takes from each weight's gradient their mean, weighted by the weights.
            mean = torch.linalg.vecdot(above.float(), output.float())[..., None]
            above = above * dropped.scale
            of_weights = torch.bmm(above, values.mT)
            kept = dropped.of(weights, of_weights)
            _put(gradients[2], block, torch.bmm(kept.mT, above))
            of_products = of_weights.sub_(mean).mul_(weights)
            _put(gradients[0], block, torch.bmm(of_products, keys).mul_(scale))
            _put(gradients[1], block, torch.bmm(of_products.mT, queries))
            first += block[1]
        return (*gradients, None, None, None, None)


class _Dropout:
    """The weights that dropout takes, drawn from a seed: the same ones in both passes."""

    def __init__(self, probability: float, seed: int | None) -> None:
        self._threshold = round(probability * CHANCES) - CHANCES // 2
        self._draws = None if seed is None else np.random.SFC64(seed)
        self.scale = 1.0 if seed is None else CHANCES / (CHANCES // 2 - self._threshold)

    def of(self, weights: "Tensor", *others: "Tensor") -> "Tensor":
        """Return a block's weights without those that are dropped, and set others to 0 in place."""
        if self._draws is None:
            return weights
        # 16 bits a weight, four of them from each number that is drawn
        numbers = self._draws.random_raw(-(-weights.numel() // 4)).view(np.int16)
        chances = torch.from_numpy(numbers[: weights.numel()]).view_as(weights)
        dropped = chances < self._threshold
        for other in others:
            other.masked_fill_(dropped, 0)
        return weights.masked_fill(dropped, 0)


def _weights(queries: "Tensor", keys: "Tensor", mask: "Tensor | None") -> "Tensor":
    """Return the softmax of a block's products (texts * H, T, T)."""
    products = torch.bmm(queries, keys.mT)
    if mask is not None:
        products.view(len(mask), -1, *products.shape[1:]).add_(mask)
    return products.softmax(-1)


def _rows(mask: "Tensor | None", first: int, block: Block) -> "Tensor | None":
    return None if mask is None else mask[first : first + block[1]]


def _heads(states: "Tensor", block: Block) -> "Tensor":
    """Return a block of states (N, H, D) as a copy (texts * H, T, D)."""
    start, texts, length = block
    part = states[start : start + texts * length].reshape(texts, length, *states.shape[1:])
    return part.transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(0, 1)


def _put(states: "Tensor", block: Block, heads: "Tensor") -> None:
    """Write a block (texts * H, T, D) to its place in states (N, H, D)."""
    start, texts, length = block
    part = states[start : start + texts * length].view(texts, length, *states.shape[1:])
    part.transpose(1, 2).copy_(heads.view(texts, -1, *heads.shape[1:]))
