"""From cached vectors to a filled index: a sample to learn from, then part after part."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.errors import ConfigError
from retrodistill.indexes import index_kind
from retrodistill.registry import INDEXES
from retrodistill.searching.truncated import shortened
from retrodistill.store.vectors import PART, vector_parts

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodistill.datasets import Texts
    from retrodistill.indexes.exact import ExactIndex
    from retrodistill.students.dense import DenseEncoder
    from retrodistill.types import Index

LEARNED = 50_000
"""Vectors that an index learns its lists and codes from."""
QUERIES = 200
"""Queries that a tuning is measured with."""
PER_ID = 160
"""Bytes that the id of a document takes, with its entry in the table of ids."""
BASE = 700 << 20
"""Bytes that the process takes without any vector: the libraries and the model."""

Parts = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]


def parts_of(encoder: "DenseEncoder", docs: "Texts", dimension: int) -> Parts:
    """Yield rows of documents and their vectors of so many dimensions, from the cache."""
    for rows, vectors in vector_parts(encoder, docs):
        if dimension < encoder.dimension:
            vectors = shortened(vectors, dimension, normalised=encoder.normalised)
        yield rows, vectors


def fill(
    index: "Index",
    encoder: "DenseEncoder",
    docs: "Texts",
    attributes: "pa.Table | None" = None,
    order: NDArray[np.int64] | None = None,
) -> None:
    """Let the index learn from an even sample, and add all documents, a part in memory.

    `order` has the rows of all documents in the order in which their vectors shall lie.
    """
    step = max(1, len(docs) // LEARNED)
    parts = parts_of(encoder, docs, index.dimension)
    index.train(np.concatenate([vectors[::step] for _, vectors in parts]), len(docs))
    if order is None:
        for rows, vectors in parts_of(encoder, docs, index.dimension):
            own = None if attributes is None else attributes.slice(int(rows[0]), len(rows))
            index.add(docs.ids(rows), vectors, own)
        return
    whole = [vectors for _, vectors in parts_of(encoder, docs, index.dimension)]
    for start in range(0, len(order), PART):
        rows = order[start : start + PART]
        vectors = np.stack([whole[row // PART][row % PART] for row in rows])
        index.add(docs.ids(rows), vectors, None if attributes is None else attributes.take(rows))


def reference(encoder: "DenseEncoder", docs: "Texts", dimension: int) -> "ExactIndex":
    """Return the exact index of all documents; vectors of full length stay in their files."""
    from retrodistill.indexes.exact import ExactIndex

    exact = ExactIndex(dimension)
    for rows, vectors in parts_of(encoder, docs, dimension):
        exact.add(docs.ids(rows), vectors)
    return exact


def needed_bytes(spec: str, documents: int, dimension: int) -> int:
    """Return about how much memory making such an index takes."""
    kept = index_kind(spec).bytes_per_vector(dimension) + PER_ID
    held = (min(documents, LEARNED) + PART) * dimension * 4
    return BASE + documents * kept + held


def check_memory(spec: str, documents: int, dimension: int, limit: int) -> None:
    """Raise ConfigError, naming kinds that fit, if an index would need more than `limit` bytes."""
    needed = needed_bytes(spec, documents, dimension)
    if needed <= limit:
        return
    local = [name for name in INDEXES if name not in ("faiss", "milvus")]
    fitting = [name for name in local if needed_bytes(name, documents, dimension) <= limit]
    raise ConfigError(
        f"--index {spec} of {documents:,} vectors of {dimension} dimensions needs about "
        f"{needed / 1e9:.1f} GB, but --memory is {limit / 1e9:.1f} GB. "
        + (f"These fit: {', '.join(fitting)}." if fitting else "Nothing fits: give more.")
    )
