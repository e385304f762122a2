"""Shallower students from deeper models: some of the layers, with their weights."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from retrodistill.base.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Model = TypeVar("Model")
"""A SentenceTransformer or a CrossEncoder."""


def parse_layers(text: str) -> tuple[int, ...]:
    """Return the layer numbers of `0,2,5`.

    Raises:
        ConfigError: a part is not a whole number.

    """
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(
            f"layers must be whole numbers with commas, as in 0,2,5, but got {text!r}."
        ) from None


def keep_layers(model: Model, layers: Sequence[int]) -> Model:
    """Return a copy of the model that has only these layers, counted from 0.

    The copy shares nothing with the model, and is saved and loaded as any other of its kind.

    Raises:
        ConfigError: no layers, a layer twice, out of order or out of range, or layers without
            which this architecture cannot be loaded again.

    """
    small = copy.deepcopy(model)
    body: PreTrainedModel | None = small.transformers_model  # type: ignore[attr-defined]
    if body is None:
        raise ConfigError("only models with a transformer have layers to keep.")
    stack = layer_stack(body)
    count = len(stack)
    chosen = list(layers)
    if not chosen or chosen != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= count:
        raise ConfigError(
            f"the model has {count} layers, 0 to {count - 1}: name at least one of them, each "
            f"once and in ascending order, but got {','.join(map(str, chosen)) or 'none'}."
        )
    modules = [stack[layer] for layer in chosen]
    del stack[:]
    stack.extend(modules)
    body.config.num_hidden_layers = len(chosen)
    types = getattr(body.config, "layer_types", None)
    if types is not None:
        body.config.layer_types = [types[layer] for layer in chosen]
    _check_loadable(body, chosen)
    return small


def layer_stack(body: "PreTrainedModel") -> "nn.ModuleList":
    """Return the list of the body's layers: the first of the config's length.

    Raises:
        ConfigError: there is none.

    """
    from torch import nn

    count = body.config.num_hidden_layers
    for module in body.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ConfigError(
        f"no list of {count} layers was found in {type(body).__name__}: "
        "this architecture cannot be cut."
    )


def unlike_config(body: "PreTrainedModel") -> list[str]:
    """Return the weights that a model made from the body's config lacks or has in another shape.

    A model that is cut without its config is saved without a warning, and loaded again with
    random weights in place of these.
    """
    import torch

    with torch.device("meta"):
        fresh = type(body)(copy.deepcopy(body.config))
    shapes, expected = (
        {name: tuple(weights.shape) for name, weights in model.state_dict().items()}
        for model in (body, fresh)
    )
    return sorted({name for name, _ in shapes.items() ^ expected.items()})


def _check_loadable(body: "PreTrainedModel", layers: Sequence[int]) -> None:
    """Raise ConfigError if a model made from the cut config has other weights than the cut one."""
    if unlike_config(body):
        raise ConfigError(
            f"{type(body).__name__} cannot be loaded again with the layers "
            f"{','.join(map(str, layers))}: its first layer differs from the others. Keep layer 0."
        )
