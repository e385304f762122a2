"""Cross-encoders: models that read a query and a document together."""

from typing import TYPE_CHECKING, Any

from retrodistill.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder


def load_cross_encoder(model: str, device: "torch.device") -> "CrossEncoder":
    """Return a cross-encoder with one score and a float32 head, from a folder or a hub id.

    A folder of a bi-encoder, or of a bare transformer, gives its body and a new head.

    Raises:
        ConfigError: there is no such model, it gives several numbers for a pair, or it is a
            causal language model.

    """
    from torch.nn import Linear

    loaded = _load(model, device)
    if _is_causal(loaded):
        raise ConfigError(
            f"{model!r} is a causal language model, which reads a pair within a prompt: "
            f"use the teacher causal-lm:{model}."
        )
    if loaded.num_labels != 1:
        raise ConfigError(
            f"cross-encoder {model!r} gives {loaded.num_labels} numbers for a pair, "
            "but a ranker must give one score."
        )
    heads = [name for name, part in loaded.named_modules() if isinstance(part, Linear)]
    heads = [name for name in heads if loaded.get_submodule(name).out_features == 1]
    loaded.set_keep_in_fp32_modules(heads[-1:])
    return loaded


def load_causal_reranker(model: str, device: "torch.device") -> "CrossEncoder":
    """Return a causal language model that answers yes or no, with a float32 head.

    Its modules are the transformer and `LogitScore`, which knows the tokens of the two answers.

    Raises:
        ConfigError: there is no such model, or it is no causal language model.

    """
    loaded = _load(model, device)
    if not _is_causal(loaded):
        raise ConfigError(
            f"{model!r} is no ForCausalLM of transformers: use the teacher cross-encoder:{model}."
        )
    body: Any = loaded.transformers_model
    head = body.get_output_embeddings()
    loaded.set_keep_in_fp32_modules([n for n, part in loaded.named_modules() if part is head])
    return loaded


def _load(model: str, device: "torch.device") -> "CrossEncoder":
    import torch
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    from retrodistill.inference import loading, model_path

    model = model_path(model)
    with loading(model):
        loaded: CrossEncoder = CrossEncoder(
            model,
            activation_fn=Identity(),
            device=str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    return loaded


def _is_causal(model: "CrossEncoder") -> bool:
    """Tell whether the model's score is read off the logits of its next word."""
    from sentence_transformers.cross_encoder.modules import LogitScore

    return any(isinstance(module, LogitScore) for module in model)
