"""The files of a model's folder as other loaders and servers expect them.

sentence-transformers 5.4 and newer write names and settings that text-embeddings-inference, vLLM
and older releases of itself do not know: pooling as one word, no `max_seq_length`, modules by
their new places. It still reads the older ones, so these are written.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODULES, BODY, CONFIG = "modules.json", "sentence_bert_config.json", "config.json"
SETTINGS, TOKENIZER = "config_sentence_transformers.json", "tokenizer.json"

KNOWN_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
"""Modules that text-embeddings-inference computes."""

POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""A pooling by its new name, and the switch that stands for it in older files."""

SERVED_POOLINGS = ("cls", "mean", "lasttoken")
SERVED_ACTIVATIONS = (
    "torch.nn.modules.activation.Tanh",
    "torch.nn.modules.linear.Identity",
)
SERVED_BODIES = frozenset(
    {
        *("bert", "camembert", "roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert"),
        *("nomic_bert", "new", "gte", "deberta-v2", "mistral", "qwen2", "qwen3", "gemma3_text"),
    }
)
"""`model_type` of bodies that it computes from safetensors; its ONNX builds take any."""

PLAIN_BODY = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""What sentence-transformers assumes of a body whose file does not say it."""


def write_portable(folder: Path, max_tokens: int | None) -> None:
    """Rewrite a model's files so that older loaders and servers read what newer ones do.

    `max_tokens` is the longest text that the model reads.
    """
    modules = _read(folder / MODULES) or []
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        if module["type"].startswith("sentence_transformers.") and kind in KNOWN_MODULES:
            module["type"] = f"sentence_transformers.models.{kind}"
            if kind == "Pooling":
                _write(folder / module["path"] / CONFIG, _older_pooling(folder / module["path"]))
    if modules:
        _write(folder / MODULES, modules)
    body = _read(folder / BODY)
    if body is not None and max_tokens is not None:
        limit = {"max_seq_length": max_tokens, "do_lower_case": bool(body.get("do_lower_case"))}
        rest = {key: value for key, value in body.items() if PLAIN_BODY.get(key) != value}
        plain = not rest.keys() - limit.keys()
        _write(folder / BODY, limit if plain else body | {"max_seq_length": max_tokens})


def read_layout(folder: Path) -> dict[str, Any]:
    """Return the parsed JSON files of a model's folder that decide how it is served, by path.

    Other files have the value True.
    """
    files: dict[str, Any] = {
        path.relative_to(folder).as_posix(): True for path in folder.rglob("*") if path.is_file()
    }
    for name in files:
        if name.endswith("config.json") or name in (MODULES, BODY, SETTINGS):
            files[name] = _read(folder / name)
    return files


def differences(files: Mapping[str, Any]) -> list[str]:
    """Return what text-embeddings-inference would refuse of a folder, or compute differently.

    `files` is as `read_layout` returns it. An empty list: it serves the model as it is.

    Source: huggingface/text-embeddings-inference as of 2026: router/src/lib.rs (configurations,
    pooling, limits, prompts), backends/src/lib.rs (Dense modules), backends/candle/src/lib.rs and
    models/dense.rs (bodies, activations), backends/ort/src/lib.rs (names, inputs and outputs).
    """
    config = files.get(CONFIG) or {}
    sentences = [*_body_rules(files, config)]
    if any(name.endswith("Classification") for name in config.get("architectures") or ()):
        return [*sentences, *_reranker_rules(files, config)]
    return [*sentences, *_module_rules(files), *_text_rules(files)]


def _body_rules(files: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    sentences = [
        f"not served: {CONFIG} does not say {key}."
        for key in ("architectures", "model_type")
        if not config.get(key)
    ]
    if TOKENIZER not in files:
        sentences.append("not served: it needs a fast tokenizer, tokenizer.json.")
    if not {"max_position_embeddings", "n_positions"} & config.keys():
        sentences.append(f"not served: {CONFIG} does not say max_position_embeddings.")
    onnx = "onnx/model.onnx" in files or "model.onnx" in files
    if "model.safetensors" not in files and not onnx:
        sentences.append("not served: there are neither safetensors weights nor an ONNX graph.")
    elif "model.safetensors" not in files:
        sentences.append("served by its ONNX builds only: there are no safetensors weights.")
    elif config.get("model_type") not in SERVED_BODIES:
        where = "by its ONNX builds only" if onnx else "not"
        sentences.append(f"{where} served: it has no body {config.get('model_type')!r}.")
    if (files.get(BODY) or {}).get("max_seq_length") is None and BODY in files:
        sentences.append(
            f"longer texts are cut elsewhere, or older versions refuse it: {BODY} does not say "
            "max_seq_length."
        )
    return sentences


def _reranker_rules(files: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    sentences = []
    if not config.get("id2label") or not config.get("label2id"):
        sentences.append(f"not served: {CONFIG} does not say id2label and label2id.")
    activation = str((files.get(SETTINGS) or {}).get("activation_fn", ""))
    if not activation.endswith("Sigmoid"):
        sentences.append(
            "/rerank answers with the sigmoid of the scores: ask with raw_scores true for the "
            "model's own."
        )
    return sentences


def _module_rules(files: Mapping[str, Any]) -> list[str]:
    modules: Sequence[Mapping[str, Any]] = files.get(MODULES) or []
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    sentences = [
        f"not as here: it does not compute the module {kind}."
        for kind in kinds
        if kind not in KNOWN_MODULES
    ]
    pooling = files.get("1_Pooling/config.json")
    if not pooling:
        sentences.append("not as here: without 1_Pooling/config.json it pools by CLS, or refuses.")
    elif (modes := _modes(pooling)) not in [[mode] for mode in SERVED_POOLINGS]:
        sentences.append(f"not served: it cannot pool by {', '.join(modes)}.")
    elif pooling.get("include_prompt") is False:
        sentences.append("not as here: it pools the tokens of a prompt too.")
    dense = [m["path"] for m in modules if m["type"].rpartition(".")[2] == "Dense"]
    for path in dense:
        activation = (files.get(f"{path}/config.json") or {}).get("activation_function")
        if activation is not None and activation not in SERVED_ACTIVATIONS:
            sentences.append(f"not served: it has no activation {activation} for {path}.")
    if dense and "onnx/model.onnx" in files:
        sentences.append("not as here in its ONNX builds: they leave the Dense modules out.")
    if "Normalize" not in kinds:
        sentences.append(
            "vectors come with length 1, which here they have not: ask with normalize false."
        )
    return sentences


def _text_rules(files: Mapping[str, Any]) -> list[str]:
    settings, body = files.get(SETTINGS) or {}, files.get(BODY) or {}
    sentences = [
        f"texts of both sides have one limit: it does not read {key}."
        for key in ("query_length", "document_length")
        if body.get(key) is not None
    ]
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    default = settings.get("default_prompt_name")
    if prompts:
        sentences.append(
            "prompts are put before texts only where a request names them: prompt_name "
            f"{', '.join(prompts)}" + (f"; {default} is the default here." if default else ".")
        )
    if body.get("do_lower_case"):
        sentences.append("not as here: it does not lower the case of texts first.")
    return sentences


def _modes(pooling: Mapping[str, Any]) -> list[str]:
    """Return the poolings of a configuration, in its older or newer form."""
    mode = pooling.get("pooling_mode")
    if mode is not None:
        return [mode] if isinstance(mode, str) else list(mode)
    return [name for name, switch in POOLINGS.items() if pooling.get(switch)]


def _older_pooling(folder: Path) -> dict[str, Any]:
    pooling = _read(folder / CONFIG)
    modes = _modes(pooling)
    dimension = pooling.get("word_embedding_dimension", pooling.get("embedding_dimension"))
    switches = {switch: name in modes for name, switch in POOLINGS.items()}
    include = pooling.get("include_prompt", True)
    return {"word_embedding_dimension": dimension, **switches, "include_prompt": include}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
