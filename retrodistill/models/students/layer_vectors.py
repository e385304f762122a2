"""Vectors of each layer of a bi-encoder, pooled as those of its last layer are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.models.inference import padded, run_model, token_batches
from retrodistill.models.students.towers import SIDES, Side, side_modules

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from retrodistill.models.students.dense import DenseEncoder

HIDDEN = "all_layer_embeddings"
"""Feature in which sentence-transformers gives the hidden states, the embeddings first."""


def count_layers(model: Any) -> int:
    """Return how many layers both sides of a bi-encoder have.

    Raises:
        ConfigError: they differ, or a side does not pool the vectors of a transformer's tokens.

    """
    from sentence_transformers.sentence_transformer.modules import Pooling

    counts = set()
    for side in SIDES:
        body, *later = side_modules(model, side)
        layers = getattr(getattr(body, "config", None), "num_hidden_layers", None)
        if layers is None or not (later and isinstance(later[0], Pooling)):
            raise ConfigError(
                "layer_scores need a transformer whose token vectors are pooled, in each layer as "
                f"in the last, but a {side} runs through "
                f"{', '.join(type(module).__name__ for module in (body, *later))}. Drop layer-kl."
            )
        counts.add(int(layers))
    if len(counts) > 1:
        few, many = sorted(counts)
        raise ConfigError(
            f"layer_scores compare a query's and a document's vectors of the same layer, but the "
            f"towers have {few} and {many} layers. Drop layer-kl, or take towers of one depth."
        )
    return counts.pop()


def layer_vectors(
    modules: Sequence[Any], features: dict[str, Any], dtype: "torch.dtype", **extra: Any
) -> "Tensor":
    """Return the float32 vectors (texts, L, D) of each layer, the first layer first.

    The hidden states of a layer run through all that follows the transformer: pooling, and
    projections and the scaling to length 1 where the model has them. The last layer's vectors are
    those of the model.
    """
    import torch

    body, *later = modules
    with _hidden_states(body):
        outputs = run_model([body], features, dtype)
    states = [state.float() for state in outputs.pop(HIDDEN)[1:-1]]
    given = torch.nn.Identity()  # in the place of a transformer whose outputs are there
    vectors = [
        run_model([given, *later], outputs | {"token_embeddings": state}, torch.float32, **extra)
        for state in (*states, outputs["token_embeddings"])
    ]
    return torch.stack([each["sentence_embedding"].float() for each in vectors], dim=1)


def encode_layers(encoder: "DenseEncoder", texts: Sequence[str], side: Side) -> NDArray[np.float32]:
    """Return the vectors of each layer, (texts, L, D), read as the encoder reads texts."""
    import torch

    modules = side_modules(encoder.model, side)
    rows, beside = encoder.tokenized(texts, side)
    lengths = [len(row["input_ids"]) for row in rows]
    layers = count_layers(encoder.model)
    vectors = np.empty((len(texts), layers, encoder.dimension), np.float32)
    with encoder.encoding(), torch.no_grad():
        for batch in token_batches(lengths, encoder.batch_tokens):
            chosen = [rows[row] for row in batch]
            features = padded(modules[0].tokenizer, chosen, encoder.model.device).joined(beside)
            outputs = layer_vectors(modules, features, encoder.dtype, task=side)
            vectors[batch] = outputs.cpu().numpy()
    return vectors


@contextmanager
def _hidden_states(body: Any) -> Iterator[None]:
    """Have a transformer give its hidden states in the block, and no longer."""
    config = body.model.config
    before = config.output_hidden_states
    config.output_hidden_states = True
    try:
        yield
    finally:
        config.output_hidden_states = before
