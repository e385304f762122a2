"""Batches of a token budget, and their way through a model."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.models.inference.devices import body_autocast
from retrodistill.models.inference.fused import fused_layers
from retrodistill.models.inference.tokens import Tokens
from retrodistill.models.inference.unpadded import unpadded

if TYPE_CHECKING:
    import torch


class Features(dict[str, Any]):
    """A model's inputs for a batch, on a device."""

    host_mask: "torch.Tensor | None" = None
    """The attention mask on the host: to ask a GPU for its own is to wait for it."""

    def joined(self, others: Mapping[str, Any]) -> "Features":
        """Return these inputs with others beside them."""
        features = Features({**self, **others})
        features.host_mask = self.host_mask
        return features


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
) -> Features:
    """Return the rows as tensors on a device, padded to the longest, or a multiple above it."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    batch = tokenizer.pad(columns, return_tensors="pt", pad_to_multiple_of=multiple)
    return on_device(batch, device)


def on_device(tensors: "Mapping[str, torch.Tensor]", device: "torch.device") -> Features:
    """Return tensors on a device; a GPU copies them while it computes."""
    if device.type == "cuda":
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    features = Features((n, tensor.to(device, non_blocking=True)) for n, tensor in tensors.items())
    features.host_mask = tensors.get("attention_mask")
    return features


def model_inputs(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    device: "torch.device",
    *,
    left: bool = False,
) -> dict[str, Any]:
    """Return rows of token ids as a model's inputs, padded at the right, or at the left.

    At the left, the positions of the tokens are given too: they do not count the padding.
    """
    import torch

    ids, mask = padded_rows(rows, tokenizer.pad_token_id or 0, left=left)
    columns = {"input_ids": ids, "attention_mask": mask}
    if left and "position_ids" in inspect.signature(model.forward).parameters:
        columns["position_ids"] = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    tensors = {name: torch.from_numpy(numbers) for name, numbers in columns.items()}
    return on_device(tensors, device)


def padded_rows(
    rows: Sequence[Sequence[int]], filler: int, *, left: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows as one array of the longest one's length, and a mask of what is real."""
    lengths = np.array([len(row) for row in rows])[:, None]
    position = np.arange(lengths.max())
    real = position >= lengths.max() - lengths if left else position < lengths
    ids = np.full(real.shape, filler, np.int64)
    ids[real] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    return ids, real.astype(np.int64)


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
    with (
        body_autocast(dtype, token_ids.device),
        fused_layers(body, token_ids, dtype),
        unpadded(body, features, dtype),
    ):
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
