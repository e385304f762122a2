"""From texts to tokens, by one thread at a time, with the library's prompts and chat templates."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from retrodistill.models.inference.cuts import note_overflow

Tokens = dict[str, list[int]]
"""One tokenised text or pair: `input_ids` and what else its tokenizer gives, unpadded."""

AT_ONCE = 256
"""Texts that a library renders together."""

_locks: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()
_making = Lock()


@contextmanager
def reserved(tokenizer: Any) -> Iterator[None]:
    """Let only this thread use a tokenizer within the block.

    A fast tokenizer holds the length at which it cuts as a setting, which each call changes: of
    two calls at once, one may be cut at the length of the other.
    """
    with _making:
        lock = _locks.setdefault(tokenizer, RLock())
    with lock:
        yield


def tokenize(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_tokens: int
) -> list[Tokens]:
    """Return the tokens of each text, or of each (text, pair), cut at `max_tokens`.

    The cut is the tokenizer's own, as in sentence-transformers: of a pair, the longer part loses.
    """
    if not texts:
        return []
    seconds = None if pairs is None else list(pairs)
    with reserved(tokenizer):
        columns = tokenizer(list(texts), seconds, truncation=True, max_length=max_tokens)
    if pairs is None:
        note_overflow(columns, max_tokens)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def is_rendered(body: Any) -> bool:
    """Tell whether a transformer's texts pass a chat template, or settings beside its tokenizer.

    `body` is the first module of a model of sentence-transformers.
    """
    return "message" in body.modality_config or bool(body.processing_kwargs)


def rendered(
    body: Any,
    inputs: Sequence[Any],
    *,
    prompt: str = "",
    max_tokens: int | None = None,
    **extra: Any,
) -> tuple[list[Tokens], dict[str, Any]]:
    """Return the tokens of texts or pairs as their library makes them, and the other inputs.

    The library renders chat templates and prompts; `extra`, such as the task, is for those. The
    inputs beside tokens are equal for all rows: the modality, and the length of the prompt.
    """
    rows: list[Tokens] = []
    beside: dict[str, Any] = {}
    limit = {} if max_tokens is None else {"max_length": max_tokens}
    for start in range(0, len(inputs), AT_ONCE):
        batch = list(inputs[start : start + AT_ONCE])
        with reserved(body.tokenizer):
            features = body.preprocess(batch, prompt=prompt or None, **limit, **extra)
        masks = features["attention_mask"].bool()
        columns = {name: value for name, value in features.items() if _is_column(value, masks)}
        beside = {name: value for name, value in features.items() if name not in columns}
        rows += [
            {name: values[row][mask].tolist() for name, values in columns.items()}
            for row, mask in enumerate(masks)
        ]
    return rows, beside


def prompt_length(tokenizer: Any, prompt: str) -> int:
    """Return the tokens of a prompt, with a first special token and without a last one."""
    with reserved(tokenizer):
        ids = tokenizer(prompt)["input_ids"]
    return len(ids) - bool(ids and ids[-1] in tokenizer.all_special_ids)


def positions(body: Any) -> int | None:
    """Return the longest input of a model of transformers, in tokens; None: unlimited.

    Where padding takes a position, as in RoBERTa, the ones up to it are not for tokens.
    """
    from torch.nn import Embedding

    limit: int | None = getattr(body.config, "max_position_embeddings", None)
    if limit is None or limit < 1:
        return None
    for name, module in body.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, Embedding):
            if module.padding_idx is not None:
                return min(limit, module.num_embeddings - module.padding_idx - 1)
    return limit


def _is_column(value: Any, masks: Any) -> bool:
    import torch

    return torch.is_tensor(value) and value.shape[:2] == masks.shape
