"""Fingerprints of models, independent of folder and device."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from retrodistill.base.manifest import digest

FORGOTTEN = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")
"""Settings of a model that say where it came from, not what it computes."""


def model_digest(structure: str, config: Any, tokenizer: Any, model: Any) -> str:
    """Return a hash of a model's structure, transformers config, tokenizer and weights."""
    settings = {name: value for name, value in config.to_dict().items() if name not in FORGOTTEN}
    return digest(
        structure,
        json.dumps(settings, sort_keys=True, default=str),
        tokenizer_rules(tokenizer),
        *_weights(model),
    )


def module_digest(structure: str, module: Any) -> str:
    """Return a hash of the structure and weights of a module without a transformer."""
    return digest(structure, *_weights(module))


def _weights(module: Any) -> Iterator[str]:
    """Yield name, type and shape of each of a module's tensors, and the hash of its bytes."""
    for name, weights in sorted(module.state_dict().items()):
        yield f"{name} {weights.dtype} {tuple(weights.shape)}"
        yield weights_digest(weights)


def weights_digest(weights: Any) -> str:
    """Return a hash of one tensor's bytes, without a copy of those that lie on the CPU."""
    import torch

    values = weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(values).hexdigest()


def tokenizer_rules(tokenizer: Any) -> str:
    """Return all that decides which tokens a text becomes, but for where it is cut, as JSON.

    That is the normaliser, the splits, the vocabulary with its merges, special tokens and where
    they are put, the sides of padding and cutting, and the chat template.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = sorted(tokenizer.get_vocab().items())
    else:
        rules = json.loads(backend.to_str())
        del rules["truncation"], rules["padding"]  # those of the last call
    sides = [tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token_id]
    template = getattr(tokenizer, "chat_template", None)
    return json.dumps([rules, sides, template], sort_keys=True)
