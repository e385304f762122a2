"""Attention on a CPU by plain products, a few texts at a time.

The weights of a block of texts, which are the square of their lengths, stay in the processor's
cache, so that the softmax between the two products reads no memory. Gradients form the weights
again, and draw dropout's choices again from one seed: between forward and backward pass nothing of
that size is kept.

Each core works on blocks of its own. Were they shared operation by operation, the cores would wait
for each other dozens of times a layer, and for whatever else the system runs on one of them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import Tensor

    from retrodistill.models.inference.unpadded import Row

BLOCK = 4 << 20
"""Bytes of the weights that a core forms at once, where a single text does not take more."""

SHARES = 2
"""Blocks for each core, at least, where there are as many texts."""

CHANCES = 1 << 16
"""Dropout's probability is a multiple of one over this."""


class Block(NamedTuple):
    """Texts of one length that stand one after the other."""

    number: int
    text: int
    """The first text's number."""
    start: int
    """The first text's first token."""
    texts: int
    length: int

    def heads(self, states: "Tensor") -> "Tensor":
        """Return the block of states (N, H, D) as a copy (texts * H, T, D)."""
        part = self._of(states).transpose(1, 2)
        return part.clone(memory_format=torch.contiguous_format).flatten(0, 1)

    def put(self, heads: "Tensor", states: "Tensor") -> None:
        """Write heads (texts * H, T, D) to their place in states (N, H, D)."""
        self._of(states).transpose(1, 2).copy_(heads.view(self.texts, -1, *heads.shape[1:]))

    def weights(self, queries: "Tensor", keys: "Tensor", mask: "Tensor | None") -> "Tensor":
        """Return the softmax of the products of heads, (texts * H, T, T)."""
        products = torch.bmm(queries, keys.mT)
        if mask is not None:
            own = mask[self.text : self.text + self.texts]
            products.view(self.texts, -1, *products.shape[1:]).add_(own)
        return products.softmax(-1)

    def _of(self, states: "Tensor") -> "Tensor":
        part = states[self.start : self.start + self.texts * self.length]
        return part.reshape(self.texts, self.length, *states.shape[1:])


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
    blocks = tuple(_blocks(lengths, query.shape[1] * query.element_size()))
    chance = Dropout(dropout, int(torch.randint(2**62, ())) if dropout else 0)
    attended: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, mask, blocks, chance, scale
    )
    return attended


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
    attended = attention_by_products(q, k, v, lengths, mask=mask, dropout=dropout, scale=scale)
    return attended.view(batch, length, *attended.shape[1:])


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


class Dropout(NamedTuple):
    """The weights that dropout takes, drawn from a seed: the same ones in both passes."""

    probability: float
    seed: int

    @property
    def chances(self) -> int:
        """Of CHANCES, those by which a weight is dropped."""
        return round(self.probability * CHANCES)

    @property
    def scale(self) -> float:
        """What weights that stay are multiplied by."""
        return CHANCES / (CHANCES - self.chances)

    def of(self, block: Block, weights: "Tensor", *others: "Tensor") -> "Tensor":
        """Return a block's weights without those that are dropped, and set others to 0 in place."""
        if not self.probability:
            return weights
        # 16 bits a weight, four of them from each number that is drawn
        draws = np.random.SFC64([self.seed, block.number])
        numbers = draws.random_raw(-(-weights.numel() // 4)).view(np.int16)
        drawn = torch.from_numpy(numbers[: weights.numel()]).view_as(weights)
        dropped = drawn < self.chances - CHANCES // 2
        for other in others:
            other.masked_fill_(dropped, 0)
        return weights.masked_fill(dropped, 0)


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
        dropout: Dropout,
        scale: float,
    ) -> "Tensor":
        attended = torch.empty_like(value, memory_format=torch.contiguous_format)

        def attend(block: Block) -> None:
            queries, keys, values = map(block.heads, (query, key, value))
            weights = block.weights(queries.mul_(scale), keys, mask)
            block.put(torch.bmm(dropout.of(block, weights), values).mul_(dropout.scale), attended)

        _on_all_cores(attend, blocks)
        ctx.save_for_backward(query, key, value, mask, attended)
        ctx.rest = blocks, dropout, scale
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: "Tensor") -> tuple[Any, ...]:
        query, key, value, mask, attended = ctx.saved_tensors
        blocks, dropout, scale = ctx.rest
        of_query, of_key, of_value = (torch.empty_like(attended) for _ in range(3))

        def differentiate(block: Block) -> None:
            # The weights once more, and what the loss says of the block's output.
            queries, keys, values = map(block.heads, (query, key, value))
            weights = block.weights(queries.mul_(scale), keys, mask)
            above, output = block.heads(gradient), block.heads(attended)
            # The softmax takes from each weight's gradient their mean, weighted by the weights.
            mean = torch.linalg.vecdot(above.float(), output.float())[..., None]
            of_weights = torch.bmm(above.mul_(dropout.scale), values.mT)
            kept = dropout.of(block, weights, of_weights)
            block.put(torch.bmm(kept.mT, above), of_value)
            of_products = of_weights.sub_(mean).mul_(weights)
            block.put(torch.bmm(of_products, keys).mul_(scale), of_query)
            block.put(torch.bmm(of_products.mT, queries), of_key)

        _on_all_cores(differentiate, blocks)
        return of_query, of_key, of_value, None, None, None, None


def _blocks(lengths: Sequence[int], size: int) -> Iterator[Block]:
    """Yield blocks of texts; `size` is the bytes of a pair of tokens in all heads."""
    whole = size * sum(length * length for length in lengths)
    limit = min(BLOCK, whole // (SHARES * torch.get_num_threads()))
    number = text = start = 0
    while text < len(lengths):
        length = lengths[text]
        most = max(1, limit // (size * length * length))
        texts = 1
        while texts < most and text + texts < len(lengths) and lengths[text + texts] == length:
            texts += 1
        yield Block(number, text, start, texts, length)
        number, text, start = number + 1, text + texts, start + texts * length


def _on_all_cores(work: Callable[[Block], None], blocks: Iterable[Block]) -> None:
    """Call `work` for each block, one core a call, on as many cores as this thread may use."""
    threads = torch.get_num_threads()
    inference = torch.is_inference_mode_enabled()

    def one(block: Block) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work(block)

    for _ in map(one, blocks) if threads == 1 else _workers(threads, os.getpid()).map(one, blocks):
        pass


@cache
def _workers(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads that use one core each; those of a process do not live on in its forks."""
    workers = ThreadPoolExecutor(threads, thread_name_prefix="attention")
    together = Barrier(threads)  # so that each thread gets one of the calls

    def use_one_core(_: int) -> None:
        torch.set_num_threads(1)
        together.wait()

    list(workers.map(use_one_core, range(threads)))
    torch.set_num_threads(threads)  # for threads that begin later, too
    return workers
