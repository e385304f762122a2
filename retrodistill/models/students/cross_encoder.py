"""Loading of cross-encoders, which read a query and a document together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder

    from retrodistill.models.inference import Tokens


def load_cross_encoder(
    model: str, device: "torch.device", *, new_head: bool = False
) -> "CrossEncoder":
    """Return a cross-encoder with one score and a float32 head, from a folder or a hub id.

    With `new_head`, a folder of a bi-encoder, or of a bare transformer, gives its body and a head
    of random weights to train.

    Raises:
        ConfigError: there is no such model, it has no head (unless `new_head`), it gives several
            numbers for a pair, or it is a causal language model.

    """
    from torch.nn import Linear

    from retrodistill.models.inference import new_weights, refuse_new_weights

    loaded = _load(model, device)
    if _is_causal(loaded):
        raise ConfigError(
            f"{model!r} is a causal language model, which reads a pair within a prompt: use the "
            f"teacher causal-lm:{model}, or train it with --student-kind causal-reranker."
        )
    if loaded.num_labels != 1:
        raise ConfigError(
            f"cross-encoder {model!r} gives {loaded.num_labels} numbers for a pair, "
            "but a ranker must give one score."
        )
    refuse_new_weights(
        model,
        loaded,
        lacking="complete body" if new_head else "ranking head",
        remedy="Use another model."
        if new_head
        else f"Use it as bi-encoder:{model}, or train a cross-encoder from it "
        f"(train --student-kind cross-encoder --student {model}).",
        new_head=new_head,
    )
    if new_head and (names := new_weights(loaded)):
        log.info(f"{model} has no ranking head: {', '.join(names)} are new and random.")
    heads = [name for name, module in loaded.named_modules() if isinstance(module, Linear)]
    heads = [name for name in heads if loaded.get_submodule(name).out_features == 1]
    loaded.set_keep_in_fp32_modules(heads[-1:])
    return loaded


def load_causal_reranker(model: str, device: "torch.device") -> "CrossEncoder":
    """Return a causal language model that answers yes or no, with a float32 head.

    Its modules are the transformer and `LogitScore`, which holds the tokens of the two answers.

    Raises:
        ConfigError: there is no such model, it lacks weights, or it is not a causal language
            model.

    """
    from retrodistill.models.inference import refuse_new_weights

    loaded = _load(model, device)
    if not _is_causal(loaded):
        raise ConfigError(
            f"{model!r} is not a ForCausalLM of transformers: use the teacher "
            f"cross-encoder:{model}."
        )
    refuse_new_weights(
        model, loaded, lacking="complete language model", remedy="Use another model."
    )
    body: Any = loaded.transformers_model
    head = body.get_output_embeddings()
    loaded.set_keep_in_fp32_modules([n for n, module in loaded.named_modules() if module is head])
    return loaded


def default_prompt(model: "CrossEncoder") -> str:
    """Return the default prompt, which the model's library puts before a query; may be empty."""
    return model.prompts.get(model.default_prompt_name or "") or ""


def pair_rows(
    model: "CrossEncoder", queries: Sequence[str], docs: Sequence[str], *, max_tokens: int
) -> "tuple[list[Tokens], dict[str, Any]]":
    """Return the tokens of each query with its document, and features of the whole batch.

    The default prompt and the chat template are applied as the library's `predict` does.
    """
    from retrodistill.models.inference import is_rendered, rendered, tokenize

    prompt, body = default_prompt(model), model[0]
    if is_rendered(body):
        pairs = list(zip(queries, docs, strict=True))
        return rendered(body, pairs, prompt=prompt, max_tokens=max_tokens)
    firsts = [prompt + query for query in queries]
    return tokenize(body.tokenizer, firsts, docs, max_tokens=max_tokens), {}


def _load(model: str, device: "torch.device") -> "CrossEncoder":
    import torch
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    from retrodistill.models.inference import loading, model_path

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
    """Tell whether the score comes from the logits of the next token."""
    from sentence_transformers.cross_encoder.modules import LogitScore

    return any(isinstance(module, LogitScore) for module in model)
