"""How a transformer is run here: device, number type, and batches of a token budget."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.config import Precision
from retrodistill.errors import ConfigError

if TYPE_CHECKING:
    import torch


def pick_device() -> "torch.device":
    """Return the GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device: "torch.device") -> bool:
    """Tell whether the device multiplies bfloat16 matrices in hardware.

    On a CPU without AVX512-BF16 or AMX, bfloat16 products are emulated, hundreds of times
    slower than float32.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def body_dtype(precision: Precision, device: "torch.device") -> "torch.dtype":
    """Return the number type of a model's body: `auto` is bfloat16 where the hardware has it."""
    import torch

    fast = has_bfloat16(device)
    if precision == "bfloat16" and not fast:
        warnings.warn(
            f"this {device.type} has no bfloat16 arithmetic: it is emulated, and very slow. "
            "Leave --precision at auto.",
            stacklevel=2,
        )
    use = fast if precision == "auto" else precision == "bfloat16"
    return torch.bfloat16 if use else torch.float32


def body_autocast(dtype: "torch.dtype", device: "torch.device") -> AbstractContextManager[None]:
    """Return a context in which matrix products run in `dtype`; weights stay float32."""
    import torch

    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the bars and reports of transformers while it reads and writes weights (not downloads).

    A cross-encoder that starts from a bi-encoder has a new head: that is meant, no warning.
    """
    import logging as standard

    from transformers.utils import logging

    hook = logging.set_tqdm_hook(
        lambda make, args, options: make(*args, **options | {"disable": True})
    )
    verbosity = logging.get_verbosity()
    library = standard.getLogger("sentence_transformers.base.model")
    level = library.level
    logging.set_verbosity(standard.ERROR)
    library.setLevel(standard.ERROR)
    try:
        yield
    finally:
        logging.set_tqdm_hook(hook)
        logging.set_verbosity(verbosity)
        library.setLevel(level)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Load a model in the block, without bars.

    Raises:
        ConfigError: it cannot be loaded; the library's reason and the remedy are named.

    """
    from safetensors import SafetensorError

    try:
        with without_bars():
            yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else error
        raise ConfigError(
            f"model {model!r} cannot be loaded: {reason}. Give a folder in sentence-transformers "
            "or transformers format with safetensors weights, or a hub id that this machine "
            "can reach or has in its cache."
        ) from error


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


Tokens = dict[str, list[int]]
"""One tokenised text or pair: `input_ids` and what else its tokenizer gives, unpadded."""


def tokenize(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_tokens: int
) -> list[Tokens]:
    """Return the tokens of each text, or of each (text, pair), cut at `max_tokens`.

    The cut is the tokenizer's own, as in sentence-transformers: of a pair, the longer part loses.
    """
    if not texts:
        return []
    seconds = None if pairs is None else list(pairs)
    columns = tokenizer(list(texts), seconds, truncation=True, max_length=max_tokens)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def padded(tokenizer: Any, rows: Sequence[Tokens], device: "torch.device") -> dict[str, Any]:
    """Return the rows as tensors on a device, padded to the longest."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    batch = tokenizer.pad(columns, return_tensors="pt")
    return {name: tensor.to(device) for name, tensor in batch.items()}


def run_model(
    model: "torch.nn.Sequential", features: dict[str, Any], dtype: "torch.dtype"
) -> dict[str, Any]:
    """Return a sentence-transformers model's outputs: body in `dtype`, what follows in float32."""
    body, *rest = model
    with body_autocast(dtype, features["input_ids"].device):
        features = body(dict(features))
    features = {
        name: value.float() if getattr(value, "dtype", None) == dtype else value
        for name, value in features.items()
    }
    for module in rest:
        features = module(features)
    return features
