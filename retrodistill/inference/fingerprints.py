"""What a model is, wherever it lies and on whatever device."""

import json
from typing import Any

from retrodistill.manifest import digest

FORGOTTEN = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
"""Settings of a model that say where it came from, not what it computes."""


def model_digest(structure: str, config: Any, tokenizer: Any, model: Any) -> str:
    """Return a hash of a model's structure, transformers config, vocabulary and weights."""
    import torch

    kept = {name: value for name, value in config.to_dict().items() if name not in FORGOTTEN}
    parts: list[str | bytes] = [
        structure,
        json.dumps(kept, sort_keys=True, default=str),
        json.dumps(sorted(tokenizer.get_vocab().items())),
    ]
    for name, weights in sorted(model.state_dict().items()):
        values = weights.detach().cpu().contiguous()
        parts.append(f"{name} {values.dtype} {tuple(values.shape)}")
        parts.append(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest(*parts)
