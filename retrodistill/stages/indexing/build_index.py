"""From cached vectors to a filled index: a sample to learn from, then part after part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.files import allow_open_files
from retrodistill.base.registry import INDEXES
from retrodistill.data.store.vectors import PART, mapped, release, vector_files
from retrodistill.models.indexes import index_kind
from retrodistill.models.students.truncated import shortened

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodistill.base.types import Index
    from retrodistill.data.datasets import Texts
    from retrodistill.models.indexes.exact import ExactIndex
    from retrodistill.models.students.dense import DenseEncoder

LEARNED = 50_000
"""Vectors that an index learns its lists and codes from, at least; at most twice that."""
QUERIES = 400
"""Queries that a tuning takes: half of them to choose an effort, half to check it."""
PER_ID = 160
"""Bytes that the id of a document takes, with its entry in the table of ids."""
BASE = 700 << 20
"""Bytes that the process takes without any vector: the libraries and the model."""


@dataclass(frozen=True, eq=False, slots=True)
class Vectors:
    """The vectors of all documents, in the files of the cache: the first dimensions of them.

    A file takes memory only while its part is used.
    """

    files: Sequence[Path]
    """Equally many documents each, but the last, in corpus order."""
    dimension: int
    normalised: bool

    @classmethod
    def of(cls, encoder: "DenseEncoder", docs: "Texts", dimension: int) -> "Vectors":
        """Return them, after encoding what is not in the cache."""
        files = list(vector_files(encoder, docs))
        allow_open_files(len(files))
        return cls(files, dimension, encoder.docs_normalised)

    def cut(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the dimensions that are wanted; all of them are left in their file."""
        if vectors.shape[1] == self.dimension:
            return vectors
        return shortened(vectors, self.dimension, normalised=self.normalised)

    def every(self, step: int) -> NDArray[np.float32]:
        """Return an even sample."""
        return np.concatenate([np.array(self.cut(mapped(file)[::step])) for file in self.files])

    def in_order(
        self, order: NDArray[np.int64] | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows of documents and their vectors, part by part: in an order, or as they lie."""
        size = len(mapped(self.files[0]))
        if order is None:
            for number, file in enumerate(self.files):
                file_vectors = self.cut(mapped(file))
                yield number * size + np.arange(len(file_vectors)), file_vectors
            return
        parts = [mapped(file) for file in self.files]
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            numbers, offsets = np.divmod(rows, size)
            gathered = np.empty((len(rows), self.dimension), np.float32)
            by_file = np.argsort(numbers, kind="stable")
            starts = np.flatnonzero(np.diff(numbers[by_file], prepend=-1))
            for positions in np.split(by_file, starts[1:]):
                file_vectors = parts[numbers[positions[0]]]
                gathered[positions] = self.cut(file_vectors[offsets[positions]])
                release(file_vectors)
            yield rows, gathered


def fill(
    index: "Index",
    vectors: Vectors,
    docs: "Texts",
    attributes: "pa.Table | None" = None,
    order: NDArray[np.int64] | None = None,
) -> None:
    """Let the index learn from an even sample, and add all documents, a part in memory.

    `order` has the rows of all documents in the order of their vectors in the index.
    """
    index.train(vectors.every(_step(len(docs))), len(docs))
    for rows, batch in vectors.in_order(order):
        index.add(docs.ids(rows), batch, None if attributes is None else attributes.take(rows))


def reference(vectors: Vectors, docs: "Texts") -> "ExactIndex":
    """Return the exact index of all documents; vectors of full length stay in their files."""
    from retrodistill.models.indexes.exact import ExactIndex

    exact = ExactIndex(vectors.dimension)
    for rows, batch in vectors.in_order(None):
        exact.add(docs.ids(rows), batch)
    return exact


def needed_bytes(spec: str, documents: int, dimension: int) -> int:
    """Return about how much memory making such an index takes."""
    stored = (index_kind(spec).bytes_per_vector(dimension) or 0) + PER_ID
    held = (documents // _step(documents) + PART) * dimension * 4
    return BASE + documents * stored + held


def _step(documents: int) -> int:
    """Return the distance of the documents that an index learns from."""
    return max(1, documents // LEARNED)


def check_memory(spec: str, documents: int, dimension: int, limit: int) -> None:
    """Raise ConfigError, naming kinds that fit, if an index would need more than `limit` bytes."""
    needed = needed_bytes(spec, documents, dimension)
    if needed <= limit:
        return
    # `faiss` alone is not an index: it needs a line of its factory.
    local = [
        name
        for name in INDEXES
        if not INDEXES.argument(name) and INDEXES[name].bytes_per_vector(dimension) is not None
    ]
    fitting = [name for name in local if needed_bytes(name, documents, dimension) <= limit]
    raise ConfigError(
        f"--index {spec} of {documents:,} vectors of {dimension} dimensions needs about "
        f"{needed / 1e9:.1f} GB, but --memory is {limit / 1e9:.1f} GB. "
        + (f"These fit: {', '.join(fitting)}." if fitting else "Nothing fits: give more.")
    )
