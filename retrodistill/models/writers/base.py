"""The form of writers, and of what they write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retrodistill.base.config import Precision
from retrodistill.base.types import Doc
from retrodistill.models.writers.prompts import Prompt, read_prompts


@dataclass(frozen=True, slots=True)
class Draft:
    """A query as it was written, before any filter."""

    text: str
    kind: str
    """What it is: `title`, `heading`, `question`, ..."""

    source: str
    """Id of the document that it was written from."""

    relevant: tuple[str, ...] = ()
    """Ids of other documents that it is as relevant to."""

    problem: str = ""
    """Why the writer itself would drop it, as a noun that is counted: `file name`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterOptions:
    """What every writer is given besides its argument."""

    per_doc: int | None = None
    """Most queries of a document, of each kind (None: the writer's own default)."""

    seed: int = 0
    """Seed of all that is sampled."""

    prompts: tuple[Prompt, ...] = ()
    """Kinds of queries to ask a language model for (none: questions)."""

    max_tokens: int = 768
    """Longest prompt, in tokens; the document loses its end."""

    batch_tokens: int = 8192
    """Padded tokens of a batch, those to be written included."""

    precision: Precision = "auto"
    """Number type of a model's body."""

    def asked(self) -> tuple[Prompt, ...]:
        """Return the prompts, or that for questions if none is chosen."""
        return self.prompts or read_prompts(())


DEFAULTS = WriterOptions()


class Writer(Protocol):
    """Writes queries for documents of the collection that it was made for.

    It is made as `kind(argument, docs, options)`: the argument behind the name's colon, all
    documents of the collection, and `WriterOptions`. Its own settings (`--option`) are
    keyword-only parameters with defaults.
    """

    fingerprint: str
    """Hash of all that shapes a query: model, prompts, lengths, seed."""

    def write(self, docs: Sequence[Doc]) -> list[Draft]:
        """Return the queries for these documents, in their order.

        The same call always returns the same. What a writer would drop is returned with its
        `problem`, so that it is counted.

        Raises:
            RetrodistillError: the documents have nothing to write from, or the model fails.

        """
        ...

    def estimate(self, docs: Sequence[Doc]) -> str:
        """Return what the writing will take (tokens, seconds or cost); empty if next to nothing."""
        ...
