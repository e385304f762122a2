"""The `@loss` decorator: float32 or better inside a loss, and no value read from padding."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, overload

import torch
from torch import Tensor

from retrodistill.objectives.losses.contract import Contract

P = ParamSpec("P")

PADDED = (
    "student_scores",
    "teacher_scores",
    "base_scores",
    "start_scores",
    "pair_scores",
    "log_weights",
    "teachers",
)
"""Signals of lists, whose padding `mask` names."""


@overload
def loss(function: Callable[P, Tensor], /) -> Callable[P, Tensor]: ...
@overload
def loss(
    *,
    zero_at: Mapping[str, str] = ...,
    least_candidates: int = ...,
    exact_gradient: bool = ...,
) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]: ...
def loss(function: Callable[..., Tensor] | None = None, /, **declared: Any) -> Any:
    """Decorate a loss: float32 or better inside, and 0 wherever `mask` says padding.

    Half and bfloat16 signals become float32, whatever autocast surrounds the call. Padding may
    hold anything, -inf and NaN too, and has a gradient of 0. Keywords declare the loss's
    `Contract`, which is kept as the attribute `contract`.
    """
    contract = Contract(**declared)
    return _guarded(function, contract) if function else lambda loss: _guarded(loss, contract)


def _guarded(function: Callable[P, Tensor], contract: Contract) -> Callable[P, Tensor]:
    signature = inspect.signature(function)

    @wraps(function)
    def guarded(*args: P.args, **settings: P.kwargs) -> Tensor:
        arguments = signature.bind(*args, **settings).arguments
        signals: dict[str, Any] = {name: _wide(value) for name, value in arguments.items()}
        mask = signals.get("mask")
        for name in PADDED:
            values = signals.get(name)
            # Another shape must not be broadcast: the check of shapes reports it.
            if mask is not None and values is not None and values.shape[-2:] == mask.shape:
                signals[name] = values.masked_fill(~mask, 0.0)
        device = next(value.device for value in signals.values() if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False):
            return function(**signals)  # type: ignore[call-arg]

    guarded.contract = contract  # type: ignore[attr-defined]
    return guarded


def _wide(value: Any) -> Any:
    """Return a floating tensor in float32 or better, and anything else unchanged."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float() if torch.finfo(value.dtype).bits < 32 else value
    return value
