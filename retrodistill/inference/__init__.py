"""How a transformer is run here: device, number type, and batches of a token budget."""

from retrodistill.inference.batches import Tokens, padded, run_model, token_batches, tokenize
from retrodistill.inference.cuts import counted_cuts
from retrodistill.inference.devices import (
    bfloat16_speedup,
    body_autocast,
    body_dtype,
    has_bfloat16,
    pick_device,
    prefers_bfloat16,
)
from retrodistill.inference.fingerprints import model_digest
from retrodistill.inference.loading import loading, saved_settings, without_bars
from retrodistill.inference.pairs import pair_tokens

__all__ = [
    "Tokens",
    "bfloat16_speedup",
    "body_autocast",
    "body_dtype",
    "counted_cuts",
    "has_bfloat16",
    "loading",
    "model_digest",
    "padded",
    "pair_tokens",
    "pick_device",
    "prefers_bfloat16",
    "run_model",
    "saved_settings",
    "token_batches",
    "tokenize",
    "without_bars",
]
