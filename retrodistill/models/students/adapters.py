"""Low-rank adapters: train few weights beside a frozen model, and fold them in afterwards."""

import copy
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from retrodistill.base.errors import ConfigError, MissingExtra
from retrodistill.models.students.layers import layer_stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Model = TypeVar("Model")
"""Any model of sentence-transformers on one or more transformers."""


def add_lora(
    model: Model,
    rank: int,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Literal["auto"] | Sequence[str] = "auto",
    *,
    seed: int = 0,
) -> Model:
    """Return a copy of the model in which only low-rank adapters are trained.

    A linear map W becomes W + (alpha / rank) B A, with A of `rank` rows drawn with `seed` and B
    zero, so that the copy starts with the model's own vectors. `targets` are the ends of the
    names of the linear maps that get one, as in ("query", "value"); `auto` is all of them in the
    transformer's layers. `dropout` is the dropout probability of A's inputs. All other weights
    are frozen. Of two towers, both get adapters.

    Raises:
        ConfigError: a number is out of range, the model has no transformer or has adapters
            already, or no linear map has such a name.
        MissingExtra: peft is not installed.

    Source: Hu et al. 2021, arXiv:2106.09685; adapters on all linear maps, and these numbers,
    are ours.

    """
    import torch

    if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise ConfigError(
            "adapters need a rank of at least 1, an alpha above 0 and a dropout from 0 to below "
            f"1, but got {rank}, {alpha} and {dropout}."
        )
    peft = _peft()
    adapted_model: Any = copy.deepcopy(model)
    bodies = _bodies(adapted_model)
    if _adapted(adapted_model):
        raise ConfigError("this model has adapters already: merge them first.")
    for parameter in adapted_model.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=_devices(adapted_model)):
        torch.manual_seed(seed)
        for body in bodies:
            config = peft.LoraConfig(
                r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=_named(body, targets)
            )
            peft.inject_adapter_in_model(config, body)
    result: Model = adapted_model
    return result


def merge_lora(model: Model) -> Model:
    """Return a copy of the model with its adapters folded into the weights.

    It gives the same vectors, holds nothing of peft, and all of its weights can be trained.

    Raises:
        ConfigError: the model has no adapters.
        MissingExtra: peft is not installed.

    """
    _peft()
    merged: Any = copy.deepcopy(model)
    adapters = _adapted(merged)
    if not adapters:
        raise ConfigError("this model has no adapters to merge: add some with add_lora.")
    for parent, name, adapter in adapters:
        adapter.merge(safe_merge=True)
        setattr(parent, name, adapter.get_base_layer())
    for body in _bodies(merged):
        del body.peft_config
    for parameter in merged.parameters():
        parameter.requires_grad_(True)
    result: Model = merged
    return result


def _peft() -> Any:
    try:
        return import_module("peft")
    except ImportError as error:
        raise MissingExtra(
            "adapters need peft. Install it with `pip install 'retrodistill[lora]'`, or train the "
            "weights themselves (--lora-rank 0)."
        ) from error


def _bodies(model: Any) -> "list[PreTrainedModel]":
    """Return the transformers of a model: one, or those of both towers."""
    from sentence_transformers.base.modules import Transformer

    bodies = [module.model for module in model.modules() if isinstance(module, Transformer)]
    if not bodies:
        raise ConfigError("only models with a transformer can have adapters.")
    return bodies


def _adapted(model: Any) -> list[tuple[Any, str, Any]]:
    """Return each linear map with an adapter, after its parent module and its name there."""
    layer = import_module("peft.tuners.lora").LoraLayer
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, layer)
    ]


def _named(body: "PreTrainedModel", targets: Literal["auto"] | Sequence[str]) -> list[str]:
    """Return the full names of the linear maps that get an adapter."""
    from torch import nn

    if isinstance(targets, str) and targets != "auto":
        raise ConfigError(f"targets must be 'auto' or a list of names, but got {targets!r}.")
    linear = {
        name: module for name, module in body.named_modules() if isinstance(module, nn.Linear)
    }
    if targets == "auto":
        within = {id(module) for module in layer_stack(body).modules()}
        return [name for name, module in linear.items() if id(module) in within]
    for target in targets:
        if not any(_ends(name, target) for name in linear):
            endings = sorted({name.rpartition(".")[2] for name in linear})
            raise ConfigError(
                f"no linear map of {type(body).__name__} is named {target!r}. "
                f"Their names end in {', '.join(endings)}."
            )
    return [name for name in linear if any(_ends(name, target) for target in targets)]


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _devices(model: Any) -> list[int]:
    """Return the GPUs whose random state the adapters' first weights would move."""
    device = model.device
    return [device.index or 0] if device.type == "cuda" else []
