"""Loading of models: without bars, and with errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from retrodistill.errors import ConfigError


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
        ConfigError: it cannot be loaded; the library's reason and the remedy are named.

    """
    from safetensors import SafetensorError

    try:
        with without_bars():
            yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else error
        raise ConfigError(
            f"model {model!r} cannot be loaded: {reason}. Give a folder in sentence-transformers "
            "or transformers format with safetensors weights, or a hub id that this machine "
            "can reach or has in its cache."
        ) from error
