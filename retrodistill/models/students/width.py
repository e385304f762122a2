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
"""A linear map's weight has what it reads along its second axis, what it writes along its first."""


def narrow(model: "SentenceTransformer", width: int) -> "SentenceTransformer":
    """Return a copy of the model whose hidden vectors have `width` dimensions, inherited from it.

    The dimensions that are kept are the same in all layers; each layer keeps whole attention
    heads of the old size, and as many neurons in proportion. Kept are

    - the dimensions of the largest mean square behind the layer norms, which is the sum of
      weight^2 + bias^2, each norm counting equally;
    - the heads of the largest sum of |query| |key| + |value| |output| over their dimensions;
    - the neurons of the largest |in| |out|,

    where |.| is the length of the weights of one dimension or neuron. Layer norms take mean and
    variance over what is left. Pooling and the first Dense behind it are cut to fit: with a
    Dense, the model's vectors keep their size; without, they have `width` dimensions.

    Nothing is drawn at random. The copy ranks roughly as the model does, and wants training. The
    measures of importance are ours.

    Raises:
        ConfigError: the width does not fit, or the architecture is none of SIZES.

    """
    first: Any = model[0]
    body = getattr(first, "model", None)
    names = SIZES.get(getattr(getattr(body, "config", None), "model_type", ""))
    if body is None or names is None:
        raise ConfigError(
            f"only {', '.join(SIZES)} can be narrowed, but this model starts with "
            f"{type(body or first).__name__}. Keep some of its layers instead."
        )
    config = _narrow_config(body.config, width, names)
    kept = _choose(body.state_dict(), config, names)
    small = copy.deepcopy(model)
    small[0].model = _cut(body, config, kept)
    _fit_rest(small, kept["hidden"], getattr(body.config, names[0]))
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
    """Return the places that are kept of `hidden`, and of `heads` and `inner` of each layer."""
    import torch

    width, heads, inner = (getattr(config, name) for name in names)
    size = width // heads
    norms = sorted({re.sub(r"\.\w+$", "", name) for name in weights if re.search(NORM, name)})
    squares = [weights[f"{n}.weight"].square() + weights[f"{n}.bias"].square() for n in norms]
    kept = {"hidden": _largest(torch.stack([part / part.sum() for part in squares]).sum(0), width)}
    for layer in sorted({match[0] for name in weights if (match := re.match(LAYER, name))}):
        query, key, value = (
            _lengths(weights, layer, name, WRITTEN)
            for name in (r"query|q_lin", r"key|k_lin", r"value|v_lin")
        )
        output = _lengths(weights, layer, r"attention\.output\.dense|out_lin", READ)
        whole = (query * key + value * output).reshape(-1, size).sum(1)
        chosen = _largest(whole, heads)
        kept[f"{layer}heads"] = (chosen[:, None] * size + torch.arange(size)).flatten()
        into = _lengths(weights, layer, r"intermediate\.dense|ffn\.lin1", WRITTEN)
        out = _lengths(weights, layer, r"(?<!attention\.)output\.dense|ffn\.lin2", READ)
        kept[f"{layer}inner"] = _largest(into * out, inner)
    return kept


def _lengths(weights: "Tensors", layer: str, pattern: str, axis: int) -> "Tensor":
    """Return the length of a linear map's weights at each place of what it reads or writes."""
    form = rf"{re.escape(layer)}.*?({pattern})\.weight"
    (found,) = (part for name, part in weights.items() if re.fullmatch(form, name))
    return found.float().square().sum(1 - axis).sqrt()


def _largest(importance: "Tensor", count: int) -> "Tensor":
    """Return the places of the largest values, in ascending order; of equal ones, the first."""
    places = importance.argsort(descending=True, stable=True)[:count]
    return places.sort().values.cpu()


def _cut(body: "PreTrainedModel", config: "PretrainedConfig", kept: "Tensors") -> "nn.Module":
    """Return a body made from the narrower config, with the weights that are kept."""
    import torch

    weights = {name: _sliced(name, part, kept) for name, part in body.state_dict().items()}
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and then replaced
        small = type(body)(config)
    wanted = {name: part.shape for name, part in small.state_dict().items()}
    if wanted != {name: part.shape for name, part in weights.items()}:
        raise ConfigError(
            f"{type(body).__name__} of this model has other weights than its config says, so it "
            "cannot be narrowed. Keep some of its layers instead."
        )
    small.load_state_dict(weights)
    assert not unlike_config(small)
    small.train(body.training)
    small.to(body.device, body.dtype)  # type: ignore[arg-type]
    return small


def _sliced(name: str, weights: "Tensor", kept: "Tensors") -> "Tensor":
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
            places = kept["hidden" if kind == "hidden" else layer + kind]
            weights = weights.index_select(axis, places.to(weights.device))
    return weights.clone()


def _fit_rest(model: "SentenceTransformer", kept: "Tensor", hidden: int) -> None:
    """Cut pooling, and the first Dense behind it, to the kept dimensions; other modules stay."""
    import torch
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Dropout, Pooling

    for place, part in list(enumerate(model))[1:]:
        if isinstance(part, Pooling):
            copies = torch.arange(part.pooling_output_dimension // hidden)
            model[place] = Pooling(len(kept), part.pooling_mode, part.include_prompt)
            kept = (kept + hidden * copies[:, None]).flatten()
        elif isinstance(part, Dense) and part.module_input_name == "sentence_embedding":
            model[place] = _narrow_dense(part, kept)
            return
        elif not isinstance(part, Normalize | Dropout):
            raise ConfigError(
                f"this model's {type(part).__name__} (module {place}) cannot be narrowed. "
                "Keep some of its layers instead."
            )


def _narrow_dense(part: Any, kept: "Tensor") -> Any:
    """Return a Dense that reads the kept dimensions only."""
    import torch
    from sentence_transformers.base.modules import Dense

    linear, places = part.linear, kept.to(part.linear.weight.device)
    small = Dense(
        len(kept),
        part.out_features,
        bias=linear.bias is not None,
        activation_function=copy.deepcopy(part.activation_function),
        init_weight=linear.weight.detach()[:, places].clone(),
        init_bias=None if linear.bias is None else linear.bias.detach().clone(),
        module_input_name=part.module_input_name,
        module_output_name=part.module_output_name,
        use_residual=part.use_residual,
    )
    if part.use_residual:
        whole = part.residual.weight if hasattr(part, "residual") else torch.eye(part.out_features)
        small.residual.weight = torch.nn.Parameter(whole.detach()[:, kept].clone())
    return small.to(linear.weight.device)
