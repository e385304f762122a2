"""Measures the gradients of an objective's terms in a task's forward pass."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Probe:
    """The outputs of a task's body, and the gradient of each term at them.

    The body's outputs are vectors of texts, of tokens, or a cross-encoder's scores: all
    gradients of the weights go through them. Outputs of a frozen tower do not count.

    With `weights`, gradients are measured at those instead: for terms that read the body at several
    depths, where a gradient at one of them is not comparable with that at another.
    """

    def __init__(self, weights: Sequence[Tensor] = ()) -> None:
        self._weights = list(weights)
        self._outputs: list[Tensor] = []
        self._squares: dict[str, list[float]] = {}

    def cut(self, output: Any) -> Any:
        """Return an output as the start of a new graph, so that no gradient enters the body.

        Measured at weights, it stays what it is.
        """
        if self._weights:
            return output
        leaf = output.detach().requires_grad_(output.requires_grad)
        if leaf.requires_grad:
            self._outputs.append(leaf)
        return leaf

    def measure(self, terms: Mapping[str, Tensor]) -> None:
        """Record the norm of each weighted term's gradient, then drop the outputs."""
        places = self._weights or self._outputs
        for name, value in terms.items():
            square = 0.0
            if value.requires_grad and places:
                gradients = torch.autograd.grad(value, places, retain_graph=True, allow_unused=True)
                square = sum(float(g.square().sum()) for g in gradients if g is not None)
            self._squares.setdefault(name, []).append(square)
        self._outputs.clear()

    def norms(self) -> dict[str, float]:
        """Return the root mean square of each term's norm over the batches in which it had one."""
        positive = {name: [x for x in squares if x > 0] for name, squares in self._squares.items()}
        return {
            name: math.sqrt(sum(squares) / len(squares)) if squares else 0.0
            for name, squares in positive.items()
        }
