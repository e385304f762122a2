"""Linear layers that add their bias, and apply GELU, in the same operation as the product.

PyTorch copies a layer's bias into the result before it multiplies, and reads and writes the whole
result again for GELU. oneDNN, which PyTorch has on board for compiled graphs, does all of it in
one operation, on a copy of the weights in the order that it reads them. Nothing is compiled here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from retrodistill.models.inference.choices import speedup
from retrodistill.models.inference.threads import held, thread

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from torch.nn import Linear, Module

    Layer = tuple[Module, Callable[[Tensor], Tensor]]

FEW = 512
"""Tokens below which a batch is not worth it: a single query gains nothing."""

ROWS = 4096
"""Tokens of a batch that weights are put in order for; other batches may take them as well."""

_known: "WeakKeyDictionary[Module, list[Layer]]" = WeakKeyDictionary()
_users: "WeakKeyDictionary[Module, int]" = WeakKeyDictionary()
_switching = Lock()


@contextmanager
def fused_layers(body: "Module", token_ids: "Tensor", dtype: "dtype") -> Iterator[None]:
    """Run a body's linear layers as one operation each, where that is possible and faster.

    That is inference on a CPU. Sums are formed in another order, as by another number of threads: a
    result moves in its last digits. Other threads that use the body at the same time, outside of
    such a block, are not affected.
    """
    import torch

    reads = token_ids.device.type == "cpu" and not torch.is_grad_enabled()
    if not (reads and token_ids.numel() >= FEW and one_operation_is_faster(dtype)):
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
    try:
        with held("fused_dtype", dtype):
            yield
    finally:
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
    packed = _Packed()

    def forward(hidden_states: "Tensor") -> "Tensor":
        dtype = thread.fused_dtype
        if dtype is not None:
            return _linear(layer, hidden_states, after, dtype, packed)
        result: Tensor = type(module).forward(module, hidden_states)
        return result

    return forward


class _Packed:
    """A layer's weights in a number type, in the order that oneDNN's product reads them.

    Made again when the layer's have changed.
    """

    def __init__(self) -> None:
        self._kept: dict[dtype, tuple[object, Tensor, Tensor | None]] = {}

    def of(self, layer: "Linear", dtype: "dtype") -> "tuple[Tensor, Tensor | None]":
        """Return weights and bias of the layer."""
        import torch

        state = _state(layer.weight), _state(layer.bias)
        kept = self._kept.get(dtype)
        if kept is None or kept[0] != state:
            weights = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype), ROWS)
            bias = None if layer.bias is None else layer.bias.detach().to(dtype)
            kept = self._kept[dtype] = state, weights, bias
        return kept[1:]


def _state(weights: "Tensor | None") -> tuple[int, int] | None:
    """Return what changes with the weights."""
    if weights is None:
        return None
    # tensors of inference mode count no changes, and can have none outside of it
    return weights.data_ptr(), 0 if weights.is_inference() else weights._version


def _linear(
    layer: "Linear", hidden_states: "Tensor", after: str, dtype: "dtype", packed: _Packed
) -> "Tensor":
    weights, bias = packed.of(layer, dtype)
    result: Tensor = _product()(hidden_states.to(dtype), weights, bias, after, [], "none")
    return result


@cache
def _product() -> Any:
    """Return oneDNN's product with bias and what comes after, or None in a build without it."""
    import torch

    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


@cache
def one_operation_is_faster(dtype: "dtype") -> bool:
    """Tell whether one operation is faster here than three, by a trial."""
    import torch

    if _product() is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False

    def trial() -> tuple[Callable[[], "Tensor"], Callable[[], "Tensor"]]:
        layer = torch.nn.Linear(384, 1536).to(dtype).requires_grad_(requires_grad=False)
        texts, packed = torch.ones(1024, 384, dtype=dtype), _Packed()
        return (
            lambda: _linear(layer, texts, "gelu", dtype, packed),
            lambda: torch.nn.functional.gelu(layer(texts)),
        )

    name = f"bias and GELU with the product, {str(dtype).removeprefix('torch.')}"
    try:
        return speedup(name, trial) > 1.0
    except RuntimeError:  # a processor without such products
        return False
