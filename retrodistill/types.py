"""The forms that parts meet in: texts, and the protocols of teachers, encoders and indexes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Qrels = Mapping[str, Mapping[str, int]]
"""query id -> document id -> relevance grade (0 or less: judged not relevant)."""


@dataclass(frozen=True, slots=True)
class Doc:
    """A document, or a query (its title is then empty)."""

    id: str
    title: str
    text: str

    @property
    def full_text(self) -> str:
        """Title and text joined by one space: what every model and BM25 read."""
        return f"{self.title} {self.text}".strip()


@runtime_checkable
class Teacher(Protocol):
    """Something slow and strong that scores queries against documents, pair by pair."""

    fingerprint: str
    """Hash of all that shapes a score: weights, template, maximum length, dtype."""

    scale: str
    """`logit`, `cosine`, `dot` or `bm25`: what the raw numbers are."""

    def score(self, queries: Sequence[Doc], docs: Sequence[Doc]) -> "NDArray[np.float32]":
        """Return the raw score of each (queries[i], docs[i]), float32, higher is better.

        The same call always gives the same numbers: a shard that is scored again is identical.
        """
        ...


@runtime_checkable
class Encoder(Protocol):
    """Something that turns queries and documents into vectors of one space."""

    fingerprint: str
    dimension: int

    def encode_queries(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return vectors of shape (len(texts), dimension)."""
        ...

    def encode_docs(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return vectors of shape (len(texts), dimension)."""
        ...


@runtime_checkable
class Index(Protocol):
    """Vectors under opaque string ids, searched by inner product.

    An index never knows a model.
    """

    dimension: int

    def __len__(self) -> int: ...

    def add(self, ids: Sequence[str], vectors: "NDArray[np.float32]") -> None:
        """Add vectors of shape (len(ids), dimension).

        Raises:
            DataError: a duplicate id, a wrong shape, NaN or infinity; nothing is added then.

        """
        ...

    def search(
        self, vectors: "NDArray[np.float32]", k: int
    ) -> tuple[list[list[str]], list["NDArray[np.float32]"]]:
        """Return for each query vector its best ids and their inner products, best first.

        A row is shorter than `k` where the index holds fewer vectors.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Read back what `save` wrote."""
        ...
