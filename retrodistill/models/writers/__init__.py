"""Writers of queries: what turns documents into queries that they answer.

A writer is a class as `retrodistill.models.writers.base.Writer` describes, and a line of
`WRITERS`; one of your own needs no line: `--writer my_lab.writers:Mine:ARGUMENT`.
"""

from typing import TYPE_CHECKING

from retrodistill.base.registry import WRITERS
from retrodistill.models.writers.base import DEFAULTS, Draft, Writer, WriterOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

__all__ = ["Draft", "Writer", "WriterOptions", "load_writer"]


def load_writer(spec: str, docs: "Texts", options: WriterOptions = DEFAULTS) -> Writer:
    """Return the writer `name` or `name:argument` for a collection's documents.

    Raises:
        ConfigError: the name is unknown, or its argument is not what it takes.

    """
    kind, argument = WRITERS.split(spec)
    writer: Writer = kind(argument, docs, options)
    return writer
