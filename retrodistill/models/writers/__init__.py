"""Writers of queries: what turns documents into queries that they answer.

A writer is a class as `retrodistill.models.writers.base.Writer` describes, and a line of
`WRITERS`; one of your own needs no line: `--writer my_lab.writers:Mine:ARGUMENT`.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import WRITERS
from retrodistill.models.teachers import parse_options
from retrodistill.models.writers.base import DEFAULTS, Draft, Writer, WriterOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

__all__ = ["Draft", "Writer", "WriterOptions", "check_options", "load_writer"]


def load_writer(
    spec: str, docs: "Texts", options: WriterOptions = DEFAULTS, *, own: Sequence[str] = ()
) -> Writer:
    """Return the writer `name` or `name:argument` for a collection's documents.

    `own` are settings of writers, each written `name=value`; those of others are passed over.

    Raises:
        ConfigError: the name is unknown, its argument is not what it takes, or a value is not of
            the setting's type.

    """
    kind, argument = WRITERS.split(spec)
    defaults = _settings(spec)
    mine = [option for option in own if option.partition("=")[0] in defaults]
    writer: Writer = kind(
        argument, docs, options, **parse_options(f"writer {spec}", mine, defaults)
    )
    return writer


def check_options(specs: Sequence[str], own: Sequence[str]) -> None:
    """Raise ConfigError for a setting that none of these writers has, or of another type."""
    settings = [_settings(spec) for spec in specs]
    together = {name: value for defaults in settings for name, value in defaults.items()}
    if own and not together:
        raise ConfigError(f"--option {own[0]}: {', '.join(specs)} has no settings of its own.")
    parse_options(f"writer {', '.join(specs)}", own, together)


def _settings(spec: str) -> dict[str, Any]:
    """Return the names and defaults of a writer's own settings."""
    parameters = inspect.signature(WRITERS.split(spec)[0]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
