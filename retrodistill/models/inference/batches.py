"""Batches of a token budget, and their way through a model."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.models.inference.devices import body_autocast
from retrodistill.models.inference.fused import fused_layers
from retrodistill.models.inference.tokens import Tokens

if TYPE_CHECKING:
    import torch


def token_batches(
    lengths: Sequence[int] | NDArray[np.int64], budget: int
) -> Iterator[NDArray[np.int64]]:
    """Yield row numbers in batches, longest texts first, so that little is padding.

    A batch's rows times its longest length stay within `budget` tokens; a text longer than the
    budget is a batch of its own. Longest first, so that running out of memory happens at once.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def padded(
    tokenizer: Any, rows: Sequence[Tokens], device: "torch.device", *, multiple: int | None = None
) -> dict[str, Any]:
    """Return the rows as tensors on a device, padded to the longest, or a multiple above it."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    batch = tokenizer.pad(columns, return_tensors="pt", pad_to_multiple_of=multiple)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def run_model(
    modules: "Iterable[torch.nn.Module]",
    features: dict[str, Any],
    dtype: "torch.dtype",
    **extra: Any,
) -> dict[str, Any]:
    """Return the outputs of sentence-transformers' modules: the first in `dtype`, others float32.

    `extra`, such as the task, goes to the modules that ask for it.
    """
    import torch

    body, *later_modules = modules
    token_ids = features["input_ids"]
    with body_autocast(dtype, token_ids.device), fused_layers(body, token_ids, dtype):
        features = body(dict(features))
    features = {
        name: value.float() if getattr(value, "dtype", None) == dtype else value
        for name, value in features.items()
    }
    with body_autocast(torch.float32, token_ids.device):
        for module in later_modules:
            names = getattr(module, "forward_kwargs", ())
            features = module(features, **{k: v for k, v in extra.items() if k in names})
    return features
