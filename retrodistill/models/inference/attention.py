"""Attention of transformers' models: by text in a row without padding, and by the faster kernel.

transformers looks its attention up by name. Under the name `sdpa` it finds the one of here, which
is its own unless the thread reads a row of texts without padding, or the model is an encoder on a
CPU. There PyTorch's kernels can be slower than plain products, in bfloat16 and with dropout above
all; which ones are is measured for each size of heads and length (`choices`).
"""

from collections.abc import Callable
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

TRIAL_TOKENS = 4096
"""Tokens of all texts of a trial."""


@cache
def register_attention() -> None:
    """Have transformers find `attention` under the name `sdpa`."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from retrodistill.models.inference.products import padded_products, row_products

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
        if row is not None and query.is_cuda:
            return _by_lengths(query, key, value, row, scaling), None
        length = query.shape[2] if row is None else query.shape[2] // len(row.lengths)
        takes_products = _takes_products(module, query, key, dropout, length)
        if row is not None:
            within = row_products if takes_products else _text_by_text
            return within(query, key, value, row, dropout, scaling), None
        if takes_products:
            return padded_products(query, key, value, attention_mask, dropout, scaling), None
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


def _takes_products(
    module: "nn.Module", query: "Tensor", key: "Tensor", dropout: float, length: int
) -> bool:
    """Tell whether plain products are the faster attention for texts of such a length here."""
    import torch

    if query.device.type != "cpu" or key.shape != query.shape:
        return False
    if not looks_both_ways(getattr(module, "config", None)):
        return False
    if dropout:
        return True  # PyTorch has no kernel for it: it forms all weights of a batch, and keeps them
    length = min(max(1 << (length - 1).bit_length(), SHORTEST), LONGEST)
    trains = torch.is_grad_enabled() and query.requires_grad
    return products_are_faster(query.dtype, query.shape[1], query.shape[3], length, trains=trains)


@cache
def products_are_faster(
    dtype: "dtype", heads: int, width: int, length: int, *, trains: bool = False
) -> bool:
    """Tell which kernel is faster for such heads and texts, by a trial."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from retrodistill.models.inference.products import attention_by_products

    texts = max(1, TRIAL_TOKENS // length)

    def trial() -> tuple[Any, Any]:
        states = torch.ones(texts * length, heads, width, dtype=dtype, requires_grad=trains)
        batch = states.view(texts, length, heads, width).transpose(1, 2)

        def run(kernel: "Callable[[], Tensor]") -> None:
            with torch.set_grad_enabled(trains):
                attended = kernel()
                if trains:
                    torch.autograd.grad(attended, states, torch.ones_like(attended))

        return (
            lambda: run(lambda: attention_by_products(states, states, states, [length] * texts)),
            lambda: run(lambda: scaled_dot_product_attention(batch, batch, batch)),
        )

    number_type = str(dtype).removeprefix("torch.")
    use = "training" if trains else "inference"
    name = f"attention by products, {use}, {number_type}, {heads} heads of {width}, {length} tokens"
    return speedup(name, trial) > 1.0


def _text_by_text(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    row: "Row",
    dropout: float,
    scale: float | None,
) -> "Tensor":
    """Return the same by PyTorch's kernel, a call a text."""
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
