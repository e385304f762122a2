"""Makers of students: what a larger model becomes before it is trained.

Each returns a copy and leaves its model as it was.
"""

import copy
from typing import TYPE_CHECKING, Any, Literal

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.layers import keep_layers, parse_layers
from retrodistill.models.students.soups import soup
from retrodistill.models.students.towers import (
    SIDES,
    is_normalised,
    side_modules,
    side_prompts,
    two_towers,
)
from retrodistill.models.students.vocabulary import prune_vocabulary
from retrodistill.models.students.width import narrow

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = [
    "keep_layers",
    "narrow",
    "parse_layers",
    "pooled",
    "prompted",
    "prune_vocabulary",
    "soup",
    "two_towers",
    "with_projection",
]

Pooled = Literal["mean", "cls", "last"]
"""Mean of a text's token vectors, the vector of its first token, or that of its last token."""

MODES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}


def pooled(model: "SentenceTransformer", how: Pooled) -> "SentenceTransformer":
    """Return a copy of the model with another pooling of token vectors, on both sides.

    `last` is the last token that is read: padding does not count, on whichever side it is.

    Raises:
        ConfigError: the pooling is unknown, the model does not pool, or what follows takes vectors
            of another dimension.

    """
    from sentence_transformers.sentence_transformer.modules import Pooling

    if how not in MODES:
        raise ConfigError(f"pooling must be {', '.join(MODES)}, but got {how!r}.")
    copied = copy.deepcopy(model)
    poolings = [
        (parent, name, pooling)
        for parent in copied.modules()
        for name, pooling in parent.named_children()
        if isinstance(pooling, Pooling)
    ]
    if not poolings:
        raise ConfigError("this model does not pool token vectors, so its pooling cannot be set.")
    for parent, name, pooling in poolings:
        setattr(
            parent, name, Pooling(pooling.embedding_dimension, MODES[how], pooling.include_prompt)
        )
    _check_sizes(copied)
    return copied


def prompted(
    model: "SentenceTransformer", *, query: str | None = None, document: str | None = None
) -> "SentenceTransformer":
    """Return a copy of the model that reads these prompts before its texts, and saves them.

    None keeps a side's prompt; an empty string removes it.
    """
    copied = copy.deepcopy(model)
    old = side_prompts(model)
    sides = zip(("query", "document"), (query, document), old, strict=True)
    new = {side: before if prompt is None else prompt for side, prompt, before in sides}
    copied.prompts = {**model.prompts, **new}
    return copied


def with_projection(model: "SentenceTransformer", weight: "Tensor") -> "SentenceTransformer":
    """Return a copy of the model whose vectors v become `weight` v, `weight` being (T, D).

    Vectors of length 1 keep it.

    Raises:
        ConfigError: the model's vectors do not have dimension D.

    """
    import torch
    from sentence_transformers.base.modules import Dense, Normalize

    size, (target_size, source_size) = int(model.get_embedding_dimension() or 0), weight.shape
    if size != source_size:
        raise ConfigError(
            f"the projection takes {source_size} dimensions, but the model has {size}."
        )
    copied = copy.deepcopy(model)
    projection: Any = Dense(
        size,
        target_size,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=weight.detach().clone(),
    )
    copied.append(projection.to(model.device))
    if is_normalised(model):
        copied.append(Normalize())
    return copied


def _check_sizes(model: "SentenceTransformer") -> None:
    """Raise ConfigError if a Dense takes vectors of another dimension than the pooling gives."""
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    for side in SIDES:
        size = 0
        for module in side_modules(model, side):
            if isinstance(module, Pooling):
                size = module.pooling_output_dimension
            elif isinstance(module, Dense) and size and module.in_features != size:
                raise ConfigError(
                    f"this model's Dense reads {module.in_features} dimensions, but with this "
                    f"pooling there would be {size}. Keep the model's own pooling."
                )
            elif isinstance(module, Dense):
                size = size and module.out_features
