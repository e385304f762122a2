"""Heads that read the token vectors of a transformer: weights of words, and smaller token vectors.

They are made of the library's modules, so that plain sentence-transformers loads them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TOKEN_DIMENSION = 128
"""Dimension of the token vectors of a new multi-vector head."""

FIRST_WEIGHT = 0.2
"""About the weight that a new sparse head gives each word."""

SPREAD = 0.05
"""Standard deviation, about, of what a new sparse head adds to it."""


def lexical_weights(
    hidden: Tensor, ids: Tensor, counting: Tensor, weight: Tensor, bias: Tensor, kept: Tensor
) -> Tensor:
    """Return the weight of each word of texts: (n, V), zero for words that a text does not have.

    A word's weight is log(1 + ReLU(max over tokens t of weight[word] . hidden[t] + bias[word])),
    of the tokens that count, and times `kept` (V), which is 0 for special tokens. It is what the
    library computes in its SpladePooling and SparseStaticEmbedding after a Dense, without the
    numbers of all other words: `hidden` (n, T, H), `ids` and `counting` (n, T), `weight` (V, H),
    `bias` (V).
    """
    # (n, T, T): what each token says of the word at each place
    numbers = hidden @ weight[ids].mT + bias[ids][:, None]
    highest = numbers.masked_fill(~counting[..., None], 0.0).amax(1).relu().log1p()
    values = highest * kept[ids] * counting
    empty = values.new_zeros(len(ids), len(kept))
    return empty.scatter_reduce(1, ids, values, "amax")  # a word that occurs twice has one weight


def lexical_pooling(modules: Sequence[Any]) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """Return `lexical_weights` in place of a sparse head's modules; None for any other modules."""
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    if tuple(map(type, modules)) != (Dense, SpladePooling, SparseStaticEmbedding):
        return None
    decoder, pooling, words = modules
    plain = decoder.bias and not decoder.use_residual
    plain = plain and isinstance(decoder.activation_function, nn.Identity)
    names = {decoder.module_input_name, decoder.module_output_name}
    how = pooling.pooling_strategy, pooling.activation_function
    if not plain or names != {"token_embeddings"} or how != ("max", "relu"):
        return None

    def pool(features: dict[str, Any]) -> dict[str, Any]:
        weights = lexical_weights(
            features["token_embeddings"],
            features["input_ids"],
            features["attention_mask"].bool(),
            decoder.linear.weight,
            decoder.linear.bias,
            words.weight,
        )
        return features | {"sentence_embedding": weights}

    return pool


def new_sparse_head(body: Any) -> list[nn.Module]:
    """Return the modules of a sparse head that gives the words of a text about equal weights.

    Its map from token vectors to words starts from the body's own vectors of words.
    """
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    size, width = len(body.tokenizer.get_vocab()), body.get_embedding_dimension()
    words = body.model.get_input_embeddings().weight.detach()[:size].float()
    if words.shape != (size, width):  # some bodies have word vectors of another dimension
        words = torch.randn(size, width)
    decoder = Dense(
        width,
        size,
        activation_function=nn.Identity(),
        init_weight=words * SPREAD / (words.std() * width**0.5),
        init_bias=torch.full((size,), float(np.expm1(FIRST_WEIGHT))),
        module_input_name="token_embeddings",
    )
    weights = torch.ones(size)
    weights[body.tokenizer.all_special_ids] = 0.0
    pooling = SpladePooling(pooling_strategy="max", embedding_dimension=size)
    return [decoder, pooling, SparseStaticEmbedding(body.tokenizer, weight=weights, frozen=True)]


def new_multi_vector_head(body: Any) -> list[nn.Module]:
    """Return the modules of a multi-vector head: a random projection of the token vectors."""
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    projection = Dense(
        body.get_embedding_dimension(),
        TOKEN_DIMENSION,
        bias=False,
        activation_function=nn.Identity(),
        module_input_name="token_embeddings",
    )
    mask = MultiVectorMask(
        skiplist_words=sorted(body.tokenizer.all_special_tokens),
        skiplist_tasks=["query", "document"],
    )
    mask.resolve_with_tokenizer(body.tokenizer)
    return [projection, mask, Normalize(module_input_name="token_embeddings")]
