"""Which texts the parts of a batch read in meta-learning: views, mixed, each side by itself.

german                  queries and documents of the view `german`
german:english          queries of one view, documents of another
german+greek:own        queries in either language; `own` are the collection's own texts
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.data.datasets.texts import Texts

if TYPE_CHECKING:
    from retrodistill.data.datasets.collection import Collection

OWN = "own"
"""The name of a collection's own texts among its views."""


class MixedTexts:
    """Several texts of the same rows: the i-th text of a call is of the (i mod n)-th of n members.

    So a batch has as much of each language as of the others, and a query changes its language
    with its place in the batch, from epoch to epoch.
    """

    def __init__(self, members: Sequence[Texts]) -> None:
        self._members = tuple(members)
        self.fingerprint = digest("mixed", *(texts.fingerprint for texts in members))

    def full_texts(self, rows: NDArray[np.int64]) -> list[str]:
        """Return title and text, joined by a space, of these rows."""
        texts = [""] * len(rows)
        for offset, member in enumerate(self._members):
            alternate = slice(offset, None, len(self._members))
            texts[alternate] = member.full_texts(rows[alternate])
        return texts


@dataclass(frozen=True, eq=False, slots=True)
class MetaView:
    """The texts that one part of a batch reads, row by row those of the collection."""

    spec: str
    queries: Texts | MixedTexts
    docs: Texts | MixedTexts

    members: "tuple[Collection, ...]"
    """The collection in each language, such that every text that is read is in one of them."""

    @property
    def fingerprint(self) -> str:
        """Hash of its texts."""
        return digest(self.queries.fingerprint, self.docs.fingerprint)


def meta_view(collection: "Collection", spec: str) -> MetaView:
    """Return the texts that a spec names, such as `german:english`.

    Raises:
        ConfigError: it is not such a spec, or there is no such view.
        DataError: a file of a view is malformed, or lacks the text of an id.

    """
    names = view_names(spec)
    queries, docs = (
        [collection.view(None if name == OWN else name) for name in side] for side in names
    )
    members = []
    for number in range(max(len(queries), len(docs))):
        read = copy(queries[number % len(queries)])
        read.docs = docs[number % len(docs)].docs
        read.fingerprint = digest(read.docs.fingerprint, read.queries.fingerprint)
        members.append(read)
    return MetaView(
        spec,
        _mixed([view.queries for view in queries]),
        _mixed([view.docs for view in docs]),
        tuple(members),
    )


def view_names(spec: str) -> tuple[list[str], list[str]]:
    """Return the names of the views of queries and of documents in a spec.

    Raises:
        ConfigError: it is not such a spec.

    """
    sides = spec.split(":")
    names = [side.split("+") for side in sides]
    if len(sides) > 2 or not all(all(side) for side in names):
        raise ConfigError(
            f"--meta-view {spec!r} is not understood. Write VIEW, QUERIES:DOCUMENTS or "
            f"ONE+ANOTHER of names of views, or paths without : and +; {OWN} are the texts of "
            "--data."
        )
    return names[0], names[-1]


def _mixed(texts: Sequence[Texts]) -> Texts | MixedTexts:
    return texts[0] if len(texts) == 1 else MixedTexts(texts)
