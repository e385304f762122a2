"""What every loss does with its signals first: enough digits, and nothing read from padding."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")

PADDED = ("student_scores", "teacher_scores", "pair_scores", "log_weights")
"""Signals of lists, whose padding `mask` names."""


def loss(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorate a loss: float32 or better inside, and 0 wherever `mask` says padding.

    Half and bfloat16 signals become float32, whatever autocast surrounds the call. Padding may
    hold anything, -inf and NaN too, and has a gradient of 0.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def guarded(*args: P.args, **settings: P.kwargs) -> Tensor:
        given = signature.bind(*args, **settings).arguments
        signals: dict[str, Any] = {name: _wide(value) for name, value in given.items()}
        mask = signals.get("mask")
        for name in PADDED:
            values = signals.get(name)
            # Another shape must not be broadcast: what does not fit is not for this place to mend.
            if mask is not None and values is not None and values.shape == mask.shape:
                signals[name] = values.masked_fill(~mask, 0.0)
        device = next(value.device for value in signals.values() if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False):
            return function(**signals)  # type: ignore[call-arg]

    return guarded


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float() if torch.finfo(value.dtype).bits < 32 else value
    return value
