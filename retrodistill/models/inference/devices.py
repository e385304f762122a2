"""Device and number type of a model."""

import warnings
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from retrodistill.base.config import Precision
from retrodistill.models.inference.choices import speedup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

WORTHWHILE = 1.2
"""How many times as fast as float32 products bfloat16 ones have to be for `auto` to take them."""


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


@cache
def bfloat16_speedup(device: "torch.device") -> float:
    """Measure how many times as fast as float32 a matrix product in bfloat16 is here.

    Of a feed-forward layer's size; a tenth of a second, once a machine. A processor may have the
    instructions and be slower with them: without AMX, Intel's are.
    """
    import torch

    def trial() -> "tuple[Callable[[], float], Callable[[], float]]":
        plain = [torch.ones(shape, device=device) for shape in ((1024, 384), (384, 1536))]
        half = [matrix.bfloat16() for matrix in plain]

        def product(matrices: "list[torch.Tensor]") -> float:
            inputs, weights = matrices
            return float((inputs @ weights)[0, 0])

        return lambda: product(half), lambda: product(plain)

    return speedup(f"bfloat16 products, {device.type}", trial)


def prefers_bfloat16(device: "torch.device") -> bool:
    """Tell whether `auto` is bfloat16: the hardware has it, and it is measurably faster."""
    return has_bfloat16(device) and bfloat16_speedup(device) >= WORTHWHILE


def body_dtype(precision: Precision, device: "torch.device") -> "torch.dtype":
    """Return the number type of a model's body: `auto` is bfloat16 where that is faster."""
    import torch

    if precision == "bfloat16" and not has_bfloat16(device):
        warnings.warn(
            f"this {device.type} has no bfloat16 arithmetic: it is emulated, and very slow. "
            "Leave --precision at auto.",
            stacklevel=2,
        )
    use = prefers_bfloat16(device) if precision == "auto" else precision == "bfloat16"
    return torch.bfloat16 if use else torch.float32


@contextmanager
def casts_kept(dtype: "torch.dtype", device: "torch.device") -> "Iterator[None]":
    """Cast weights to `dtype` once for all forward passes of the block, which have no gradients.

    Else each pass casts every weight again, which takes a short query more than half of its time.
    Weights may not change within the block. It is for one thread, and does nothing in float32.
    """
    import torch

    with torch.no_grad(), body_autocast(dtype, device):  # inference mode would keep no casts
        yield


def body_autocast(dtype: "torch.dtype", device: "torch.device") -> AbstractContextManager[None]:
    """Return a context in which matrix products run in `dtype`; weights stay float32."""
    import torch

    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
