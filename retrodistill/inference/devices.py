"""Where a model runs, and in which number type."""

import warnings
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from retrodistill.config import Precision

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
