"""Layers over the real tokens of a batch alone, without its padding.

The texts of a batch stand one after the other in one row from the first layer to the last; products
and norms read no padding, and attention looks at each text by itself: one kernel of variable
lengths on a GPU, a call a text on a CPU. What comes before and after, the embeddings and the heads,
sees the padded batch as ever, so that pooling, classifiers and heads over words need not know.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from retrodistill.models.inference.attention import looks_both_ways, register_attention
from retrodistill.models.inference.threads import held, thread

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

FEW = 512
"""Padded tokens below which a batch is too small to gain."""

CPU_PADDING = 0.05
"""Share of padding from which a CPU gains: a call a text costs something too."""

_bodies: "WeakKeyDictionary[nn.Module, PreTrainedModel | None]" = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Row:
    """The real tokens of a padded batch (B, T), one after the other (N)."""

    shape: tuple[int, int]

    indices: "Tensor"
    """(N) of each token in the flat batch."""

    lengths: list[int]
    """Tokens of each text."""

    bounds: "Tensor"
    """(B + 1) int32: where each text begins, and the end."""

    def pack(self, states: "Tensor") -> "Tensor":
        """Return states (B, T, D) as (1, N, D)."""
        return states.flatten(0, 1).index_select(0, self.indices)[None]

    def pad(self, states: "Tensor") -> "Tensor":
        """Return states (1, N, D) as (B, T, D), with zeros in the padding."""
        batch, longest = self.shape
        flat = states.new_zeros(batch * longest, states.shape[-1])
        return flat.index_copy(0, self.indices, states[0]).view(batch, longest, -1)


@contextmanager
def unpadded(body: "nn.Module", features: dict[str, Any], dtype: "torch.dtype") -> Iterator[None]:
    """Run a body's layers over real tokens alone within the block, where that is possible and pays.

    Results are those of the padded batch but for the order of sums; dropout draws other masks.
    Between the first and the last layer, states are a row of tokens then: who looks at them there
    takes `padded_layers`.
    """
    register_attention()  # before the first batch of any size: a run must not depend on its history
    row = None if thread.keeps_padding else _row(body, features, dtype)
    with held("row", row):
        yield


def padded_layers() -> AbstractContextManager[None]:
    """Return a block in which this thread's layers keep the padding."""
    return held("keeps_padding", value=True)


def _row(body: "nn.Module", features: dict[str, Any], dtype: "torch.dtype") -> Row | None:
    """Return the real tokens of a batch, or None if its layers are to run over the padding."""
    import torch

    mask = features.get("attention_mask")
    if mask is None or mask.dim() != 2 or mask.numel() < FEW:
        return None
    on_gpu = mask.device.type == "cuda"
    if on_gpu and (dtype == torch.float32 or body.training):
        return None  # the kernel has neither float32 nor dropout
    if body not in _bodies:
        _bodies[body] = _prepared(body)
    model = _bodies[body]
    if model is None:
        return None
    on_host = getattr(features, "host_mask", None)
    real = (mask.cpu() if on_host is None else on_host).bool()
    lengths = real.sum(1)
    counts: list[int] = lengths.tolist()
    padding = 1 - sum(counts) / mask.numel()
    if not padding or not min(counts) or (padding < CPU_PADDING and not on_gpu):
        return None
    if _watched(model):
        return None
    bounds = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    indices = real.flatten().nonzero().flatten()
    bounds, indices = (each.to(mask.device, non_blocking=True) for each in (bounds, indices))
    return Row((mask.shape[0], mask.shape[1]), indices, counts, bounds)


def _watched(model: "PreTrainedModel") -> bool:
    """Tell whether layers' states are given out, or computed again outside of the block."""
    config = model.config
    recomputed = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    return bool(recomputed or config.output_hidden_states or config.output_attentions)


def _prepared(body: "nn.Module") -> "PreTrainedModel | None":
    """Have a body's layers take a row of tokens in a block; return its model if they can."""
    from transformers import PreTrainedModel

    transformer = next((m for m in body.modules() if isinstance(m, PreTrainedModel)), None)
    model: Any = transformer and transformer.base_model
    if model is None or not looks_both_ways(model.config):
        return None
    if model.config._attn_implementation != "sdpa":
        return None
    stack: Any = next(m.layer for m in model.modules() if hasattr(m, "layer"))
    # a copy of a body with fewer layers has the hooks of the layers that it kept
    if _pack not in stack[0]._forward_pre_hooks.values():
        stack[0].register_forward_pre_hook(_pack)
    if _pad not in stack[-1]._forward_hooks.values():
        stack[-1].register_forward_hook(_pad)
    prepared: PreTrainedModel = model
    return prepared


def _pack(layer: "nn.Module", args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    row = thread.row
    return None if row is None else (row.pack(args[0]), *args[1:])


def _pad(layer: "nn.Module", args: tuple[Any, ...], output: Any) -> Any:
    row = thread.row
    if row is None:
        return None
    return (row.pad(output[0]), *output[1:]) if isinstance(output, tuple) else row.pad(output)
