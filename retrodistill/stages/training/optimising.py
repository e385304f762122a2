"""How two models are trained by one optimizer: a learning rate and a gradient norm of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback


def set_rates(optimizer: torch.optim.Optimizer, rates: Mapping[nn.Module, float]) -> None:
    """Move the parameters of each module into groups with a learning rate of its own."""
    for module, rate in rates.items():
        ids = {id(parameter) for parameter in module.parameters()}
        for group in list(optimizer.param_groups):
            parameters = group["params"]
            moved = [parameter for parameter in parameters if id(parameter) in ids]
            if moved:
                group["params"] = [each for each in parameters if id(each) not in ids]
                optimizer.add_param_group({**group, "params": moved, "lr": rate})


class ClipEach(TrainerCallback):
    """Clips the gradient of each model to a norm, before each step of the optimizer.

    A Trainer clips all gradients together, so that a large gradient of one model would shrink the
    steps of the other.
    """

    def __init__(self, models: Sequence[nn.Module], norm: float) -> None:
        self._models, self._norm = models, norm

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Clip the gradients that the step will use."""
        for model in self._models:
            torch.nn.utils.clip_grad_norm_(model.parameters(), self._norm)
