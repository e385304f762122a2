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
    """Return a copy of the model that pools token vectors so, on both sides.

    The last token is the last one that is read: padding does not count, on whichever side it is.

    Raises:
        ConfigError: there is no such pooling, or nothing in the model to pool, or what follows
            takes vectors of another size.

    """
    from sentence_transformers.sentence_transformer.modules import Pooling

    if how not in MODES:
        raise ConfigError(f"pooling must be {', '.join(MODES)}, but got {how!r}.")
    other = copy.deepcopy(model)
    places = [
        (parent, name, part)
        for parent in other.modules()
        for name, part in parent.named_children()
        if isinstance(part, Pooling)
    ]
    if not places:
        raise ConfigError("this model does not pool token vectors, so its pooling cannot be set.")
    for parent, name, part in places:
        setattr(parent, name, Pooling(part.embedding_dimension, MODES[how], part.include_prompt))
    _check_sizes(other)
    return other


def prompted(
    model: "SentenceTransformer", *, query: str | None = None, document: str | None = None
) -> "SentenceTransformer":
    """Return a copy of the model that reads these prompts before its texts, and saves them.

    A side that is given none keeps what it has; an empty one takes it away.
    """
    other = copy.deepcopy(model)
    old = side_prompts(model)
    sides = zip(("query", "document"), (query, document), old, strict=True)
    new = {side: before if given is None else given for side, given, before in sides}
    other.prompts = {**model.prompts, **new}
    return other


def with_projection(model: "SentenceTransformer", weight: "Tensor") -> "SentenceTransformer":
    """Return a copy of the model whose vectors v become `weight` v, `weight` being (T, D).

    Vectors of length 1 keep it.

    Raises:
        ConfigError: the model's vectors are not of size D.

    """
    import torch
    from sentence_transformers.base.modules import Dense, Normalize

    size, (wanted, given) = int(model.get_embedding_dimension() or 0), weight.shape
    if size != given:
        raise ConfigError(f"the projection takes {given} dimensions, but the model has {size}.")
    other = copy.deepcopy(model)
    projection: Any = Dense(
        size,
        wanted,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=weight.detach().clone(),
    )
    other.append(projection.to(model.device))
    if is_normalised(model):
        other.append(Normalize())
    return other


def _check_sizes(model: "SentenceTransformer") -> None:
    """Raise ConfigError if a Dense reads vectors of another size than come out of the pooling."""
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    for side in SIDES:
        size = 0
        for part in side_modules(model, side):
            if isinstance(part, Pooling):
                size = part.pooling_output_dimension
            elif isinstance(part, Dense) and size and part.in_features != size:
                raise ConfigError(
                    f"this model's Dense reads {part.in_features} dimensions, but with this "
                    f"pooling there would be {size}. Keep the model's own pooling."
                )
            elif isinstance(part, Dense):
                size = size and part.out_features
