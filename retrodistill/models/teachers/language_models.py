"""Language models of transformers: loading, fingerprints, and batches through the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.models.inference import (
    body_autocast,
    body_dtype,
    loading,
    model_digest,
    model_inputs,
    model_path,
    pick_device,
    positions,
)

if TYPE_CHECKING:
    import torch

    from retrodistill.models.inference.options import ModelOptions

Kind = Literal["causal", "seq2seq", "classifier"]
KINDS: dict[Kind, str] = {
    "causal": "a causal language model",
    "seq2seq": "an encoder-decoder",
    "classifier": "a sequence classifier",
}


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A transformer with float32 weights whose body runs in `dtype`, and its head in float32."""

    kind: Kind
    model: Any
    tokenizer: Any
    device: "torch.device"
    dtype: "torch.dtype"
    fingerprint: str
    """Hash of the weights, settings, tokenizer and number type."""

    def __call__(self, **inputs: Any) -> Any:
        """Return the model's outputs, the head's in float32."""
        return self.run(self.model, **inputs)

    def run(self, module: Any, **inputs: Any) -> Any:
        """Return the outputs of a module of the model."""
        with body_autocast(self.dtype, self.device):
            return module(**inputs)

    def inputs(self, rows: Sequence[Sequence[int]], *, left: bool = False) -> dict[str, Any]:
        """Return rows of token ids as the model's inputs, padded at the right, or at the left."""
        return model_inputs(self.model, self.tokenizer, rows, self.device, left=left)

    def tensors(self, **columns: NDArray[np.int64]) -> dict[str, Any]:
        """Return arrays as tensors on the model's device."""
        import torch

        return {name: torch.from_numpy(values).to(self.device) for name, values in columns.items()}


def load_language_model(
    name: str,
    part: str,
    kinds: Sequence[Kind],
    options: "ModelOptions",
    *,
    attention: str | None = None,
) -> LanguageModel:
    """Return a transformer of one of these kinds, from a folder or a hub id.

    `part` is what needs it, for messages. Only safetensors weights are read, and no code that comes
    with a model is run. `attention` is
    transformers' name of how it is computed (default: its own choice); `eager` returns its weights.

    Raises:
        ConfigError: there is no such model, it is of another kind, it lacks weights, or it cannot
            read inputs as long as `options` require.

    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    if not name:
        raise ConfigError(f"{part} needs a model: {part}:FOLDER or a hub id.")
    classes: dict[Kind, Any] = {
        "causal": AutoModelForCausalLM,
        "seq2seq": AutoModelForSeq2SeqLM,
        "classifier": AutoModelForSequenceClassification,
    }
    name = model_path(name)
    with loading(name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind = kind_of(config)
    if kind is None or kind not in kinds:
        required = " or ".join(KINDS[name] for name in kinds)
        actual = KINDS[kind] if kind else f"of another kind ({config.architectures})"
        raise ConfigError(f"{part} needs {required}, but {name!r} is {actual}.")
    with loading(name):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        tokenizer("a")  # its settings may be of wrong types
        model, report = classes[kind].from_pretrained(
            name,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        lacking = ", ".join(sorted(report["missing_keys"])[:3])
        raise ConfigError(f"{name!r} lacks weights of {KINDS[kind]}: {lacking}. Use another model.")
    check_length(model, tokenizer, options.max_tokens)
    device = pick_device()
    dtype = body_dtype(options.precision, device)
    fingerprint = digest(
        model_digest(type(model).__name__, model.config, tokenizer, model), str(dtype)
    )
    _keep_head_in_float32(model)
    return LanguageModel(kind, model.to(device).eval(), tokenizer, device, dtype, fingerprint)


def kind_of(config: Any) -> Kind | None:
    """Return the kind of a model by its config, or None if it is of another."""
    architecture = (config.architectures or [""])[0]
    if architecture.endswith("ForSequenceClassification"):
        return "classifier"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")) and not config.is_encoder_decoder:
        return "causal"
    generates = architecture.endswith(("ForConditionalGeneration", "LMHeadModel"))
    return "seq2seq" if config.is_encoder_decoder and generates else None


def check_length(model: Any, tokenizer: Any, max_tokens: int) -> None:
    """Raise ConfigError if `max_tokens` is more than a model of transformers has positions for."""
    limit = positions(model)
    if limit is not None and max_tokens > (limit := min(limit, tokenizer.model_max_length)):
        raise ConfigError(
            f"--max-tokens {max_tokens} is more than this model can read: {limit} tokens."
        )


def decoder_start(model: LanguageModel) -> list[int]:
    """Return the tokens that an encoder-decoder's output begins with, before any word.

    Raises:
        ConfigError: the model's settings do not name the first.

    """
    from retrodistill.models.inference.templates import special_tokens

    start = getattr(model.model.config, "decoder_start_token_id", None)
    if start is None:
        raise ConfigError(
            "this encoder-decoder does not name its decoder's first token: "
            "add decoder_start_token_id to its config.json."
        )
    return [start, *special_tokens(model.tokenizer)[0]]


def in_batches(
    batches: Sequence[NDArray[np.int64]], ask: "Callable[[NDArray[np.int64]], torch.Tensor]"
) -> NDArray[np.float32]:
    """Return one number a row, from a function that gives those of a batch of rows."""
    import torch

    scores = np.empty(sum(map(len, batches)), np.float32)
    with torch.inference_mode():
        # Read at the end only: a GPU then never waits for the next batch.
        outputs = [ask(batch) for batch in batches]
    if outputs:
        scores[np.concatenate(batches)] = torch.cat(outputs).float().cpu().numpy()
    return scores


def _keep_head_in_float32(model: Any) -> None:
    """Replace the last linear layer by one that computes in float32 under autocast too."""
    import torch

    class Float32Linear(torch.nn.Module):
        def __init__(self, layer: torch.nn.Linear) -> None:
            super().__init__()
            self.weight, self.bias = layer.weight, layer.bias

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            with torch.autocast(states.device.type, enabled=False):
                return torch.nn.functional.linear(states.float(), self.weight, self.bias)

    head = model.get_output_embeddings()
    layers = {n: layer for n, layer in model.named_modules() if type(layer) is torch.nn.Linear}
    names = [name for name, layer in layers.items() if layer is head]
    if head is None:
        labels = model.config.num_labels
        names = [name for name, layer in layers.items() if layer.out_features == labels]
    for name in names[-1:]:
        model.set_submodule(name, Float32Linear(layers[name]))
