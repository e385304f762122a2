"""Weights that a callback keeps beside the model: copied, restored, and written with checkpoints.

A callback's state is one file of each checkpoint, weights and numbers together. It is written
before the Trainer's own files, of which trainer_state.json is the last: a complete checkpoint has
it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically

Weights = dict[str, Tensor]
NUMBERS = "numbers"


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name; shared ones once."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def taken(model: nn.Module) -> Weights:
    """Return a copy of the trained weights, in their own number type, on their device."""
    return {name: parameter.detach().clone() for name, parameter in trained(model).items()}


@torch.no_grad()
def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Overwrite the trained weights of a model."""
    for name, parameter in trained(model).items():
        parameter.copy_(weights[name])


def write_snapshot(
    args: Any, state: Any, name: str, weights: Weights, numbers: Mapping[str, Any]
) -> None:
    """Write weights and numbers into the checkpoint that the Trainer is about to make."""
    if state.is_world_process_zero:
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        held = {key: value.cpu().contiguous() for key, value in weights.items()}
        write_atomically(folder / name, save(held, {NUMBERS: json.dumps(numbers)}))


def read_snapshot(checkpoint: Path, name: str, model: nn.Module) -> tuple[Weights, dict[str, Any]]:
    """Return what `write_snapshot` wrote into a checkpoint, on the devices of the model.

    Raises:
        DataError: there is no such file, it is damaged, or it is of another model.

    """
    path = Path(checkpoint) / name
    parameters = trained(model)
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})[NUMBERS])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}), but this training needs it. Resume with the "
            "settings that the checkpoint was made with, or train from scratch, without --resume."
        ) from error
    shapes = {key: value.shape for key, value in weights.items()}
    if weights and shapes != {key: value.shape for key, value in parameters.items()}:
        raise DataError(
            f"{path} holds weights of another model: train from scratch, without --resume."
        )
    return {key: value.to(parameters[key].device) for key, value in weights.items()}, numbers
