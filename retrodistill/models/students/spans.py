"""Vectors of a text's sentences, pooled from the tokens of the whole text that a student reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets.passages import BOUNDARY
from retrodistill.models.inference import reserved, run_model

SPANS = frozenset({"matched_span_vectors"})

NUMBERS = "span_numbers"
"""Beside a chunk's features, (texts, tokens): the number of each token's span, 0 for none."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Bounds of a sentence in its text, in characters."""

    start: int
    end: int


def sentences(text: str) -> list[Sentence]:
    """Return the sentences of a text that has several; of a single one there are no parts."""
    cuts = [0, *(match.end() for match in BOUNDARY.finditer(text)), len(text)]
    bounds = [
        Sentence(start, start + len(text[start:end].rstrip())) for start, end in pairwise(cuts)
    ]
    real = [bound for bound in bounds if any(map(str.isalnum, text[bound.start : bound.end]))]
    return real if len(real) > 1 else []


def token_sentences(
    tokenizer: Any, texts: Sequence[str], *, prompt: str, max_tokens: int
) -> list[tuple[list[int], NDArray[np.int64]]]:
    """Return each text's token ids, and the position of each token's sentence, -1 for none.

    A sentence that is cut at `max_tokens`, the prompt and special tokens belong to none.

    Raises:
        ConfigError: the tokenizer does not say where its tokens stand.

    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            "span-contrastive needs to know where tokens stand in a text, which this student's "
            "slow tokenizer does not say. Take a student with a fast tokenizer."
        )
    if not texts:
        return []
    with reserved(tokenizer):
        encoded = tokenizer(
            [prompt + text for text in texts],
            truncation=True,
            max_length=max_tokens,
            return_offsets_mapping=True,
            verbose=False,
        )
    result = []
    for text, ids, offsets in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T - len(prompt)
        real = (ends > starts) & (starts >= 0)
        read = int(ends[real].max(initial=0))
        owners = np.full(len(ids), -1, np.int64)
        for position, bound in enumerate(sentences(text)):
            if bound.end <= read:
                owners[real & (starts >= bound.start) & (ends <= bound.end)] = position
        result.append((ids, owners))
    return result


def number_spans(
    tokenizer: Any,
    chunks: Sequence[dict[str, Any]],
    texts: Sequence[str],
    *,
    prompt: str,
    max_tokens: int,
) -> list[tuple[int, int]]:
    """Number the spans of the chunks' texts; return the text and the sentence of each.

    Spans count from 0 through all chunks, in the order of texts in each; each chunk gets NUMBERS
    among its features, where a number is one more than the span's own.

    Raises:
        ConfigError: the student reads other tokens than its tokenizer gives for the text.

    """
    read = token_sentences(tokenizer, texts, prompt=prompt, max_tokens=max_tokens)
    spans: list[tuple[int, int]] = []
    for chunk in chunks:
        features = chunk["features"]
        numbers = torch.zeros_like(features["input_ids"])
        for row, text in enumerate(chunk["positions"].tolist()):
            ids, owners = read[text]
            real = features["attention_mask"][row].bool()
            if features["input_ids"][row, real].tolist() != ids:
                raise ConfigError(
                    "span-contrastive: this student reads other tokens than its tokenizer gives "
                    "for a text, such as those of a chat template, so its sentences cannot be "
                    "found among them. Drop span-contrastive."
                )
            for sentence in np.unique(owners[owners >= 0]).tolist():
                spans.append((text, sentence))
                tokens = real.nonzero()[:, 0][torch.from_numpy(owners == sentence)]
                numbers[row, tokens] = len(spans)
        features[NUMBERS] = numbers
    return spans


def check_spans(modules: Sequence[Any]) -> None:
    """Check that a student's vector of a text is a mean of its tokens', as a span's is.

    Raises:
        ConfigError: it is not.

    """
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    body, *later = modules
    pooling = later[0] if later else None
    if not (
        isinstance(body, Transformer)
        and isinstance(pooling, Pooling)
        and pooling.pooling_mode in ("mean", ("mean",), ["mean"])
    ):
        raise ConfigError(
            "span-contrastive pools the mean of a sentence's tokens, and is for bi-encoders that "
            "pool the mean of a text's: set --pooling mean, or drop span-contrastive."
        )


def text_and_span_vectors(
    modules: Sequence[Any], features: dict[str, Any], dtype: torch.dtype, **extra: Any
) -> Tensor:
    """Return float32 vectors (texts + spans, D): of the texts, then of the spans by number.

    A span's is the mean of its tokens' vectors, each of which has seen the whole text, and what
    follows the pooling, such as a projection and the scaling to length 1.
    """
    features = dict(features)
    numbers = features.pop(NUMBERS)
    outputs = run_model(modules, features, dtype, **extra)
    vectors: Tensor = outputs["sentence_embedding"].float()
    chosen = numbers > 0
    if not chosen.any():
        return vectors
    lowest = int(numbers[chosen].min())
    owners = numbers[chosen] - lowest
    tokens = outputs["token_embeddings"].float()[chosen]  # (tokens of spans, H)
    counts = torch.bincount(owners).to(tokens.dtype)
    sums = tokens.new_zeros(len(counts), tokens.shape[-1]).index_add(0, owners, tokens)
    pooled = {"input_ids": features["input_ids"], "sentence_embedding": sums / counts[:, None]}
    spans = run_model([nn.Identity(), *modules[2:]], pooled, torch.float32, **extra)
    return torch.cat([vectors, spans["sentence_embedding"].float()])
