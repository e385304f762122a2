"""Attention of transformers' models: by text in a row without padding, and by the faster kernel.

transformers looks its attention up by name. Under the name `sdpa` it finds the one of here, which
is its own unless the thread reads a row of texts without padding, or the batch is inference in
bfloat16 on a CPU. There PyTorch's flash kernel can be slower than the plain products, which one
is measured for each size of heads and length (`choices`).
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from retrodistill.models.inference.choices import speedup
from retrodistill.models.inference.threads import thread

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn

    from retrodistill.models.inference.unpadded import Row

ARCHITECTURES = frozenset({"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"})
"""Model types whose attention has no positions of its own, no window and no direction."""

SHORTEST, LONGEST = 16, 512
"""Lengths for which kernels are compared; shorter and longer ones take the nearest choice."""


@cache
def register_attention() -> None:
    """Have transformers find `attention` under the name `sdpa`."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(
        module: "nn.Module",
        query: "Tensor",
        key: "Tensor",
        value: "Tensor",
        attention_mask: "Tensor | None",
        dropout: float = 0.0,
        scaling: float | None = None,
        **settings: Any,
    ) -> Any:
        """Return attention (B, T, H, D) of tensors (B, H, T, D), and None for its weights."""
        row = thread.row
        if row is not None:
            if query.is_cuda:
                return _by_lengths(query, key, value, row, scaling), None
            return _text_by_text(query, key, value, row, dropout, scaling), None
        if not dropout and _takes_products(module, query, key):
            return products(query, key, value, attention_mask, scaling).transpose(1, 2), None
        return plain(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            **settings,
        )

    ALL_ATTENTION_FUNCTIONS.register("sdpa", attention)


def looks_both_ways(config: Any) -> bool:
    """Tell whether each token of a model looks at all others, wherever they are in a row."""
    is_encoder = getattr(config, "model_type", None) in ARCHITECTURES
    return is_encoder and not getattr(config, "is_decoder", False)


def products(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    mask: "Tensor | None" = None,
    scale: float | None = None,
) -> "Tensor":
    """Return attention (B, H, T, D) by two plain products; `mask` is boolean or added."""
    import torch

    batch, heads, length, width = query.shape
    flat = [each.reshape(batch * heads, -1, width) for each in (query, key, value)]
    weights = torch.bmm(flat[0] * (width**-0.5 if scale is None else scale), flat[1].mT)
    if mask is not None:
        weights = weights.view(batch, heads, length, -1)
        weights = (
            weights.masked_fill(~mask, torch.finfo(weights.dtype).min)
            if mask.dtype == torch.bool
            else weights + mask
        ).view(batch * heads, length, -1)
    return torch.bmm(weights.softmax(-1).to(value.dtype), flat[2]).view(query.shape)


def _takes_products(module: "nn.Module", query: "Tensor", key: "Tensor") -> bool:
    """Tell whether plain products are the faster attention of a batch here."""
    import torch

    if torch.is_grad_enabled() or query.is_cuda or query.dtype != torch.bfloat16:
        return False
    if key.shape != query.shape or not looks_both_ways(getattr(module, "config", None)):
        return False
    length = min(max(1 << (query.shape[2] - 1).bit_length(), SHORTEST), LONGEST)
    return products_are_faster(query.dtype, query.shape[1], query.shape[3], length)


@cache
def products_are_faster(dtype: "dtype", heads: int, width: int, length: int) -> bool:
    """Tell which kernel is faster for such heads and texts, by a trial."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    shape = max(1, 2048 // length), heads, length, width

    def trial() -> tuple[Any, Any]:
        texts = torch.ones(shape, dtype=dtype)
        return (
            lambda: products(texts, texts, texts),
            lambda: scaled_dot_product_attention(texts, texts, texts),
        )

    number_type = str(dtype).removeprefix("torch.")
    name = f"attention by products, {number_type}, {heads} heads of {width}, {length} tokens"
    return speedup(name, trial) > 1.0


def _text_by_text(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    row: "Row",
    dropout: float,
    scale: float | None,
) -> "Tensor":
    """Return attention within each text, (1, N, H, D), of tensors (1, H, N, D)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    parts = (torch.split(each, row.lengths, dim=2) for each in (query, key, value))
    heads = [
        scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(heads, dim=2).transpose(1, 2)


def _by_lengths(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    row: "Row",
    scale: float | None,
) -> "Tensor":
    """Return the same by the GPU's kernel for texts of several lengths."""
    from torch.nn.attention.varlen import varlen_attn

    queries, keys, values = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
    bounds, longest = row.bounds, max(row.lengths)
    heads: Any = varlen_attn(queries, keys, values, bounds, bounds, longest, longest, scale=scale)
    return heads[None]  # type: ignore[no-any-return]
