"""A head of several experts behind a bi-encoder's pooling, each weighted by a gate of the vector.

It is saved as two plain Dense modules, the first with torch's own GLU, which computes a sigmoid(b)
of the halves (a, b) of a vector: that is an expert's output times its gate. So it loads in
sentence-transformers without anybody's code.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.towers import is_normalised

EXPERT_WIDTH = 64
"""Rank of an expert: it maps a vector down to this many numbers, and back."""

OPEN = 20.0
"""Logit of a gate that is always open: its sigmoid is 1 in float32."""


class GatedMap(nn.Module):
    """The first map: a vector as it is and what each expert makes of it, then the logits of gates.

    All outputs of an expert share one gate; a Dense with GLU would have one for each output. The
    vector itself passes at a gate that is always open.
    """

    def __init__(self, up: Tensor, gates: Tensor, biases: Tensor) -> None:
        """Take the experts' maps (E, R, D), the gates (E, D) and their biases (E)."""
        super().__init__()
        self.up, self.gates = nn.Parameter(up), nn.Parameter(gates)
        self.biases = nn.Parameter(biases)

    @property
    def experts(self) -> int:
        """Number of experts."""
        return len(self.gates)

    def maps(self) -> tuple[Tensor, Tensor]:
        """Return the weight (2 (D + E R), D) and the bias of an equal plain linear map."""
        _, rank, size = self.up.shape
        gates = self.gates.repeat_interleave(rank, 0)
        passed = torch.eye(size, dtype=gates.dtype, device=gates.device)
        weight = torch.cat([passed, self.up.flatten(0, 1), torch.zeros_like(passed), gates])
        biases = self.biases.repeat_interleave(rank)
        closed = biases.new_zeros(size + len(biases))
        return weight, torch.cat([closed, biases.new_full((size,), OPEN), biases])

    def forward(self, vectors: Tensor) -> Tensor:
        """Return (..., 2 (D + E R)) of vectors (..., D)."""
        return linear(vectors, *self.maps())

    def plain(self) -> nn.Linear:
        """Return the same as a plain linear map."""
        weight, bias = (tensor.detach() for tensor in self.maps())
        result = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
        result.weight, result.bias = nn.Parameter(weight), nn.Parameter(bias)
        return result

    @classmethod
    def of(cls, plain: nn.Linear) -> "GatedMap | None":
        """Return a plain linear map as what it was saved from; None if its gates differ."""
        weight, bias, size = plain.weight.detach(), plain.bias.detach(), plain.in_features
        half = len(weight) // 2
        rank = EXPERT_WIDTH
        if len(weight) % 2 or half <= size or (half - size) % rank:
            return None
        up = weight[size:half].reshape(-1, rank, size)
        gates, biases = weight[half + size :: rank], bias[half + size :: rank]
        result = cls(up.clone(), gates.clone(), biases.clone())
        same = zip(result.maps(), (weight, bias), strict=True)
        return result if all(torch.equal(made, saved) for made, saved in same) else None


def with_experts(model: Any, count: int, *, seed: int = 0) -> Any:
    """Return a copy of a bi-encoder with a head of experts, which starts with the model's vectors.

        y = A x + sum over experts e of sigmoid(g_e . x + b_e) V_e U_e x

    A starts as the identity and V as zeros, so that the first vectors are the model's own; U and g
    are random. Vectors of length 1 keep it. Every expert is computed for every text: routing is
    soft. A vector costs 3 D (D + 64 E) multiplications more, little beside a transformer.

    Raises:
        ConfigError: there are fewer than two experts, or the model has such a head already.

    Source: one block of experts behind the last layer, Sokli et al. 2024, "Investigating Mixture of
    Experts in Dense Retrieval", arXiv:2412.11864 (from its abstract), whose routing is a softmax or
    the top expert. Gates that are sigmoids, experts of low rank, and the path beside them are ours:
    neither a softmax over experts nor a choice among them is a module of the library.

    """
    from sentence_transformers.base.modules import Dense, Normalize

    if count < 2:
        raise ConfigError(f"--experts must be at least 2, but it is {count}.")
    if any(isinstance(module, GatedMap) for module in model.modules()):
        raise ConfigError("this model has a head of experts already: train it without --experts.")
    size, rank = int(model.get_embedding_dimension()), EXPERT_WIDTH
    generator = torch.Generator().manual_seed(seed)
    scale = 1.0 if is_normalised(model) else size**-0.5
    gated = GatedMap(
        torch.randn(count, rank, size, generator=generator) * scale,
        torch.randn(count, size, generator=generator) * scale,
        torch.zeros(count),
    )
    width = size + count * rank
    mixture: Any = Dense(size, 2 * width, activation_function=nn.GLU())
    mixture.linear = gated
    mixed: Any = Dense(
        width,
        size,
        bias=False,
        activation_function=nn.Identity(),
        init_weight=torch.eye(size, width),
    )
    copied = copy.deepcopy(model)
    for module in (mixture, mixed):
        copied.append(module.to(model.device))
    if is_normalised(model):
        copied.append(Normalize())
    return copied


def trained_experts(model: Any) -> Any:
    """Return a copy of a model whose saved head of experts keeps one gate for each of them.

    Trained as plain modules, its outputs would each get a gate. A model without a head is itself.
    """
    gates = [GatedMap.of(dense.linear) for dense in _gated(model) if _is_plain(dense)]
    if not any(gates):
        return model
    copied = copy.deepcopy(model)
    dense = [each for each in _gated(copied) if _is_plain(each)]
    for module, gated in zip(dense, gates, strict=True):
        if gated is not None:
            module.linear = gated
    return copied


def plain_experts(model: Any) -> Any:
    """Return a copy of a model with plain modules for its head; a model without one is itself."""
    if not any(isinstance(module, GatedMap) for module in model.modules()):
        return model
    copied = copy.deepcopy(model)
    for dense in _gated(copied):
        if isinstance(dense.linear, GatedMap):
            dense.linear = dense.linear.plain()
    return copied


def expert_layers(model: Any) -> list[nn.Module]:
    """Return the maps of a model's head of experts, which are new; none without such a head."""
    layers: list[nn.Module] = []
    for module, after in pairwise(model):
        if isinstance(getattr(module, "linear", None), GatedMap):
            layers += [module.linear, after.linear]
    return layers


def _gated(model: Any) -> Iterator[Any]:
    """Yield the Dense modules of a model that gate one half of their output by the other."""
    from sentence_transformers.base.modules import Dense

    for module in model.modules():
        if isinstance(module, Dense) and isinstance(module.activation_function, nn.GLU):
            yield module


def _is_plain(dense: Any) -> bool:
    return isinstance(dense.linear, nn.Linear) and dense.linear.bias is not None
