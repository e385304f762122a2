"""Loading of models: without progress bars, complete, and with errors that name the remedy."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrodistill.base.errors import ConfigError, RetrodistillError
from retrodistill.base.manifest import check_model_files

ADAPTERS = ("lora_", ".modules_to_save.", ".original_module.")
"""Weights that adapters bring, or replace."""


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the bars and reports of transformers while it reads and writes weights (not downloads).

    `refuse_new_weights` finds the missing weights that its report would list.
    """
    import logging as standard

    from transformers.utils import logging

    hook = logging.set_tqdm_hook(
        lambda make, args, options: make(*args, **options | {"disable": True})
    )
    verbosity = logging.get_verbosity()
    library = standard.getLogger("sentence_transformers.base.model")
    level = library.level
    logging.set_verbosity(standard.ERROR)
    library.setLevel(standard.ERROR)
    try:
        yield
    finally:
        logging.set_tqdm_hook(hook)
        logging.set_verbosity(verbosity)
        library.setLevel(level)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Load a model in the block, without bars.

    Raises:
        ConfigError: as `explained`; or some of its weights are only in a pickle.
        DataError: a file of a student's folder is not the one that was saved.

    """
    check_model_files(Path(model))
    with explained(model), without_bars():
        refuse_pickled_modules(model)
        yield


@contextmanager
def explained(model: str) -> Iterator[None]:
    """Turn any exception that a malformed model raises in the block into one sentence.

    Raises:
        ConfigError: it cannot be loaded, or its parts do not fit together; the reason and the
            remedy are named.

    """
    try:
        yield
    except RetrodistillError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = lines[0].rstrip(".")
        if not isinstance(error, OSError | ValueError) or not reason:
            reason = f"{type(error).__name__} {reason}".strip()
        raise ConfigError(
            f"model {model!r} cannot be loaded: {reason}. Give a folder in sentence-transformers "
            "or transformers format with safetensors weights, or a hub id that this machine "
            "can reach or has in its cache."
        ) from error


def saved_settings(model: str, file: str) -> Any:
    """Return a JSON file that was saved with a model; an empty dict if there is none."""
    from sentence_transformers.util import load_file_path

    path = load_file_path(model, file)
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}


def refuse_pickled_modules(model: str) -> None:
    """Raise ValueError if the weights of a module behind the transformer are only in a pickle."""
    from sentence_transformers.util import load_file_path

    for folder in filter(
        None, (module["path"] for module in saved_settings(model, "modules.json"))
    ):
        if load_file_path(model, "model.safetensors", subfolder=folder):
            continue
        if load_file_path(model, "pytorch_model.bin", subfolder=folder):
            raise ValueError(f"the weights of its module {folder} are only in a pickle")


def new_weights(model: Any) -> list[str]:
    """Return the names of weights that the checkpoint lacks, so that they are random.

    `model` is of sentence-transformers; its transformers mark each weight that they read. A
    pooler whose output nothing reads is set to zero instead, so that two loads are one model.
    """
    import torch
    from sentence_transformers.base.modules import Transformer

    names: list[str] = []
    for module in model.modules():
        if not isinstance(module, Transformer):
            continue
        pooler_is_read = "pooler_output" in repr(module.modality_config)
        for name, weights in module.model.named_parameters():
            if getattr(weights, "_is_hf_initialized", False):
                continue
            if any(mark in name for mark in ADAPTERS):
                continue
            if name.startswith("pooler.") and not pooler_is_read:
                with torch.no_grad():
                    weights.zero_()
                continue
            names.append(name)
    return names


def refuse_new_weights(
    name: str, model: Any, *, lacking: str, remedy: str, new_head: bool = False
) -> None:
    """Raise ConfigError if some weights of a loaded model are random.

    `lacking` names what the model lacks, `remedy` what to do. A `new_head` may be random: what
    is outside of the body, and its pooler.
    """
    names = new_weights(model)
    if new_head:
        body = f"{model.transformers_model.base_model_prefix}."
        names = [weight for weight in names if weight.startswith(body) and ".pooler." not in weight]
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise ConfigError(
            f"model {name!r} has no {lacking}: its checkpoint lacks {shown}, which would be "
            f"random numbers. {remedy}"
        )
