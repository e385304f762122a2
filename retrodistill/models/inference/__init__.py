"""How a transformer is run here: device, number type, and batches of a token budget."""

from retrodistill.models.inference.batches import (
    model_inputs,
    padded,
    padded_rows,
    run_model,
    token_batches,
)
from retrodistill.models.inference.cuts import counted_cuts
from retrodistill.models.inference.devices import (
    bfloat16_speedup,
    body_autocast,
    body_dtype,
    casts_kept,
    has_bfloat16,
    pick_device,
    prefers_bfloat16,
)
from retrodistill.models.inference.fingerprints import model_digest, module_digest
from retrodistill.models.inference.loading import (
    explained,
    loading,
    new_weights,
    refuse_new_weights,
    saved_settings,
    without_bars,
)
from retrodistill.models.inference.models import model_path
from retrodistill.models.inference.pairs import pair_tokens, rendered_pairs
from retrodistill.models.inference.tokens import (
    Tokens,
    is_rendered,
    positions,
    prompt_length,
    rendered,
    reserved,
    tokenize,
)

__all__ = [
    "Tokens",
    "bfloat16_speedup",
    "body_autocast",
    "body_dtype",
    "casts_kept",
    "counted_cuts",
    "explained",
    "has_bfloat16",
    "is_rendered",
    "loading",
    "model_digest",
    "model_inputs",
    "model_path",
    "module_digest",
    "new_weights",
    "padded",
    "padded_rows",
    "pair_tokens",
    "pick_device",
    "positions",
    "prefers_bfloat16",
    "prompt_length",
    "refuse_new_weights",
    "rendered",
    "rendered_pairs",
    "reserved",
    "run_model",
    "saved_settings",
    "token_batches",
    "tokenize",
    "without_bars",
]
