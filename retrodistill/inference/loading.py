"""Loading of models: without bars, and with errors that say what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrodistill.errors import ConfigError, RetrodistillError


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the bars and reports of transformers while it reads and writes weights (not downloads).

    A cross-encoder that starts from a bi-encoder has a new head: that is meant, no warning.
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
        ConfigError: it cannot be loaded, or some of its weights are only in a pickle; the reason
            and the remedy are named.

    """
    from safetensors import SafetensorError

    try:
        with without_bars():
            refuse_pickled_modules(model)
            yield
    except RetrodistillError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else error
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

    for folder in filter(None, (part["path"] for part in saved_settings(model, "modules.json"))):
        if load_file_path(model, "model.safetensors", subfolder=folder):
            continue
        if load_file_path(model, "pytorch_model.bin", subfolder=folder):
            raise ValueError(f"the weights of its module {folder} are only in a pickle")
