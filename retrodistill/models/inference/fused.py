"""Linear layers that add their bias, and apply GELU, in the same operation as the product.

PyTorch copies a layer's bias into the result before it multiplies, and reads and writes the whole
result again for GELU. oneDNN, which PyTorch has on board for compiled graphs, does all of it in
one operation. Nothing is compiled here, and weights stay where they are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock, local
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from retrodistill.models.inference.devices import speedup

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from torch.nn import Linear, Module

    Layer = tuple[Module, Callable[[Tensor], Tensor]]

FEW = 512
"""Tokens below which a batch is not worth it: a single query gains nothing."""

_known: "WeakKeyDictionary[Module, list[Layer]]" = WeakKeyDictionary()
_users: "WeakKeyDictionary[Module, int]" = WeakKeyDictionary()
_switching = Lock()
_thread = local()


@contextmanager
def fused_layers(body: "Module", token_ids: "Tensor", dtype: "dtype") -> Iterator[None]:
    """Run a body's linear layers as one operation each, where that is possible and faster.

    That is inference in float32 on a CPU. Sums are formed in another order, as by another number
    of threads: a result moves in its last digits. Other threads that use the body at the same time,
    outside of such a block, are not affected.
    """
    import torch

    plain = token_ids.device.type == "cpu" and dtype == torch.float32
    if not (plain and token_ids.numel() >= FEW and not torch.is_grad_enabled() and _faster()):
        yield
        return
    with _switching:
        if not _users.get(body):
            # A forward in a module's own dictionary belongs to another library.
            layers = _known.get(body) or list(_layers(body))
            _known[body] = layers
            for module, forward in layers:
                module.__dict__.setdefault("forward", forward)
        _users[body] = _users.get(body, 0) + 1
    before = getattr(_thread, "fused", False)
    _thread.fused = True
    try:
        yield
    finally:
        _thread.fused = before
        with _switching:
            _users[body] -= 1
            if not _users[body]:
                for module, forward in _known[body]:
                    if module.__dict__.get("forward") is forward:
                        del module.__dict__["forward"]


def _layers(body: "Module") -> Iterator["Layer"]:
    """Yield the modules that can run as one operation, and how they do."""
    from torch.nn import Linear
    from transformers.activations import GELUActivation

    for module in body.modules():
        if type(module) is Linear:
            yield module, _for_this_thread(module, module, "none")
        elif type(module).__name__.endswith("Intermediate"):  # BERT and its relatives
            dense = getattr(module, "dense", None)
            activation = getattr(module, "intermediate_act_fn", None)
            if type(dense) is Linear and isinstance(activation, GELUActivation):
                yield module, _for_this_thread(module, dense, "gelu")


def _for_this_thread(module: "Module", layer: "Linear", after: str) -> "Callable[[Tensor], Tensor]":
    """Return a forward that is one operation in threads within a block, else the module's own."""

    def forward(hidden_states: "Tensor") -> "Tensor":
        if getattr(_thread, "fused", False):
            return _linear(layer, hidden_states, after)
        result: Tensor = type(module).forward(module, hidden_states)
        return result

    return forward


def _linear(layer: "Linear", hidden_states: "Tensor", after: str) -> "Tensor":
    result: Tensor = _product()(hidden_states, layer.weight, layer.bias, after, [], "none")
    return result


@cache
def _product() -> Any:
    """Return oneDNN's product with bias and what comes after, or None in a build without it."""
    import torch

    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


@cache
def _faster() -> bool:
    """Tell whether one operation is faster here than three, by a trial of a tenth of a second."""
    import torch

    if _product() is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    layer, texts = torch.nn.Linear(384, 1536), torch.ones(1024, 384)
    return (
        speedup(
            lambda: _linear(layer, texts, "gelu"),
            lambda: torch.nn.functional.gelu(layer(texts)),
        )
        > 1.0
    )
