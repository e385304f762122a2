"""Narrower students from wider models: fewer dimensions, heads and neurons, with their weights."""

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.layers import unlike_config

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

    Tensors = Mapping[str, Tensor]

AXES = (
    (r"embeddings\.\w+_embeddings\.", ("", "hidden")),
    (r"\.(query|key|value|q_lin|k_lin|v_lin)\.", ("heads", "hidden")),
    (r"\.attention\.(output\.dense|out_lin)\.", ("hidden", "heads")),
    (r"\.(intermediate\.dense|ffn\.lin1)\.", ("inner", "hidden")),
    (r"\.(output\.dense|ffn\.lin2)\.", ("hidden", "inner")),
    (r"^pooler\.dense\.", ("hidden", "hidden")),
    (r"(LayerNorm|_layer_norm)\.", ("hidden",)),
)
"""What runs along the axes of a weight, by its name in BERT, RoBERTa and DistilBERT.

The first pattern that fits holds. `hidden` is the same in all layers, `heads` (their dimensions)
and `inner` (neurons) are each layer's own.
"""

USUAL = ("hidden_size", "num_attention_heads", "intermediate_size")
SIZES = {
    "bert": USUAL,
    "camembert": USUAL,
    "distilbert": ("dim", "n_heads", "hidden_dim"),
    "roberta": USUAL,
    "xlm-roberta": USUAL,
}
"""Architectures that can be narrowed, and what their configs call width, heads and neurons."""

NORM, LAYER = r"(LayerNorm|_layer_norm)\.(weight|bias)$", r".*\.layer\.\d+\."
READ, WRITTEN = (1, 0)
"""Axes of a linear map's weight: inputs run along the second, outputs along the first."""


def narrow(model: "SentenceTransformer", width: int) -> "SentenceTransformer":
    """Return a copy of the model whose hidden vectors have `width` dimensions, inherited from it.

    The dimensions that are kept are the same in all layers; each layer keeps whole attention
    heads of the old size, and as many neurons in proportion. Kept are

    - the dimensions of the largest mean square behind the layer norms, which is the sum of
      weight^2 + bias^2, each norm counting equally;
    - the heads of the largest sum of `|query| |key| + |value| |output|` over their dimensions;
    - the neurons of the largest `|in| |out|`,

    where `|.|` is the length of the weights of one dimension or neuron. Layer norms take mean and
    variance over the remaining dimensions. Pooling and the first Dense behind it are cut to fit:
    with a Dense, the model's vectors keep their size; without, they have `width` dimensions.

    Nothing is drawn at random. The copy ranks roughly as the model does, and needs training. The
    measures of importance are ours.

    Raises:
        ConfigError: the width does not fit, or the architecture is not one of SIZES.

    """
    module: Any = model[0]
    body = getattr(module, "model", None)
    names = SIZES.get(getattr(getattr(body, "config", None), "model_type", ""))
    if body is None or names is None:
        raise ConfigError(
            f"only {', '.join(SIZES)} can be narrowed, but this model starts with "
            f"{type(body or module).__name__}. Keep some of its layers instead."
        )
    config = _narrow_config(body.config, width, names)
    chosen = _choose(body.state_dict(), config, names)
    small = copy.deepcopy(model)
    small[0].model = _cut(body, config, chosen)
    _fit_pooling(small, chosen["hidden"], getattr(body.config, names[0]))
    return small


def _narrow_config(
    config: "PretrainedConfig", width: int, names: tuple[str, str, str]
) -> "PretrainedConfig":
    """Return the config of the narrower body."""
    hidden, heads, inner = (getattr(config, name) for name in names)
    size = hidden // heads
    if not size <= width < hidden or width % size:
        raise ConfigError(
            f"the width must be a multiple of {size}, the size of this model's attention heads, "
            f"and less than its {hidden} dimensions, but got {width}."
        )
    config = copy.deepcopy(config)
    for name, value in zip(names, (width, width // size, inner * width // hidden), strict=True):
        setattr(config, name, value)
    return config


def _choose(
    weights: "Tensors", config: "PretrainedConfig", names: tuple[str, str, str]
) -> "dict[str, Tensor]":
    """Return the positions to keep of `hidden`, and of `heads` and `inner` of each layer."""
    import torch

    width, heads, inner = (getattr(config, name) for name in names)
    size = width // heads
    # Dimensions, by their mean square behind the layer norms.
    norms = sorted({re.sub(r"\.\w+$", "", name) for name in weights if re.search(NORM, name)})
    squares = [weights[f"{n}.weight"].square() + weights[f"{n}.bias"].square() for n in norms]
    chosen = {
        "hidden": _largest(torch.stack([square / square.sum() for square in squares]).sum(0), width)
    }
    for layer in sorted({match[0] for name in weights if (match := re.match(LAYER, name))}):
        # Heads, by their query and key and by their value and output.
        query, key, value = (
            _lengths(weights, layer, name, WRITTEN)
            for name in (r"query|q_lin", r"key|k_lin", r"value|v_lin")
        )
        output = _lengths(weights, layer, r"attention\.output\.dense|out_lin", READ)
        head_importance = (query * key + value * output).reshape(-1, size).sum(1)
        best_heads = _largest(head_importance, heads)
        chosen[f"{layer}heads"] = (best_heads[:, None] * size + torch.arange(size)).flatten()
        # Neurons, by what goes in and what comes out.
        into = _lengths(weights, layer, r"intermediate\.dense|ffn\.lin1", WRITTEN)
        out = _lengths(weights, layer, r"(?<!attention\.)output\.dense|ffn\.lin2", READ)
        chosen[f"{layer}inner"] = _largest(into * out, inner)
    return chosen


def _lengths(weights: "Tensors", layer: str, pattern: str, axis: int) -> "Tensor":
    """Return the length of a linear map's weights at each dimension that it reads or writes."""
    form = rf"{re.escape(layer)}.*?({pattern})\.weight"
    (linear,) = (weight for name, weight in weights.items() if re.fullmatch(form, name))
    return linear.float().square().sum(1 - axis).sqrt()


def _largest(importance: "Tensor", count: int) -> "Tensor":
    """Return the positions of the largest values, ascending; of equal values, the earlier ones."""
    positions = importance.argsort(descending=True, stable=True)[:count]
    return positions.sort().values.cpu()


def _cut(body: "PreTrainedModel", config: "PretrainedConfig", chosen: "Tensors") -> "nn.Module":
    """Return a body made from the narrower config, with the weights that are kept."""
    import torch

    weights = {name: _sliced(name, weight, chosen) for name, weight in body.state_dict().items()}
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and then replaced
        small = type(body)(config)
    expected = {name: weight.shape for name, weight in small.state_dict().items()}
    if expected != {name: weight.shape for name, weight in weights.items()}:
        raise ConfigError(
            f"{type(body).__name__} of this model has other weights than its config says, so it "
            "cannot be narrowed. Keep some of its layers instead."
        )
    small.load_state_dict(weights)
    assert not unlike_config(small)
    small.train(body.training)
    small.to(body.device, body.dtype)  # type: ignore[arg-type]
    return small


def _sliced(name: str, weights: "Tensor", chosen: "Tensors") -> "Tensor":
    """Return what is kept of a weight; a bias has the first axis of its weight only."""
    axes = next((axes for pattern, axes in AXES if re.search(pattern, name)), None)
    if axes is None:
        raise ConfigError(
            f"this model has a weight {name} that cannot be narrowed. "
            "Keep some of its layers instead."
        )
    match = re.match(LAYER, name)
    layer = match[0] if match else ""
    for axis, kind in enumerate(axes[: weights.ndim]):
        if kind:
            positions = chosen["hidden" if kind == "hidden" else layer + kind]
            weights = weights.index_select(axis, positions.to(weights.device))
    return weights.clone()


def _fit_pooling(model: "SentenceTransformer", chosen: "Tensor", hidden: int) -> None:
    """Cut pooling, and the first Dense behind it, to the kept dimensions; other modules stay."""
    import torch
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Dropout, Pooling

    for index, module in list(enumerate(model))[1:]:
        if isinstance(module, Pooling):
            copies = torch.arange(module.pooling_output_dimension // hidden)
            model[index] = Pooling(len(chosen), module.pooling_mode, module.include_prompt)
            chosen = (chosen + hidden * copies[:, None]).flatten()
        elif isinstance(module, Dense) and module.module_input_name == "sentence_embedding":
            model[index] = _narrow_dense(module, chosen)
            return
        elif not isinstance(module, Normalize | Dropout):
            raise ConfigError(
                f"this model's {type(module).__name__} (module {index}) cannot be narrowed. "
                "Keep some of its layers instead."
            )


def _narrow_dense(dense: Any, chosen: "Tensor") -> Any:
    """Return a Dense that reads the kept dimensions only."""
    import torch
    from sentence_transformers.base.modules import Dense

    linear, columns = dense.linear, chosen.to(dense.linear.weight.device)
    small = Dense(
        len(chosen),
        dense.out_features,
        bias=linear.bias is not None,
        activation_function=copy.deepcopy(dense.activation_function),
        init_weight=linear.weight.detach()[:, columns].clone(),
        init_bias=None if linear.bias is None else linear.bias.detach().clone(),
        module_input_name=dense.module_input_name,
        module_output_name=dense.module_output_name,
        use_residual=dense.use_residual,
    )
    if dense.use_residual:
        whole = (
            dense.residual.weight if hasattr(dense, "residual") else torch.eye(dense.out_features)
        )
        small.residual.weight = torch.nn.Parameter(whole.detach()[:, chosen].clone())
    return small.to(linear.weight.device)
