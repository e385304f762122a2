"""Vectors of a collection's documents, computed once for each model and kept in the cache.

Mining, teaching and indexing with the same encoder share them. They lie in parts that are written
whole or not at all, so an interrupted computation goes on where it was.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.errors import DataError
from retrodistill.manifest import cache_folder, digest, write_atomically
from retrodistill.progress import bar

if TYPE_CHECKING:
    from retrodistill.datasets import Texts
    from retrodistill.types import Encoder

PART = 2048
"""Documents in a part: what an interruption can cost."""


def vector_parts(
    encoder: "Encoder", docs: "Texts"
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield rows of documents and their vectors, in corpus order, encoding what is not cached."""
    with bar("encoding documents", len(docs)) as advance:
        for start in range(0, len(docs), PART):
            rows = np.arange(start, min(start + PART, len(docs)))
            path = _part(encoder, docs, start)
            if not path.exists():
                vectors = encoder.encode_docs(docs.full_texts(rows))
                bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
                if len(bad):
                    name = docs[int(rows[bad[0]])].id
                    raise DataError(
                        f"the encoder gives NaN or infinity for document {name!r} "
                        f"({len(bad)} such of {len(rows)}). Check the model."
                    )
                buffer = io.BytesIO()
                np.save(buffer, vectors, allow_pickle=False)
                write_atomically(path, buffer.getvalue())
            yield rows, np.load(path, mmap_mode="r", allow_pickle=False)
            advance(len(rows))


def doc_vectors(encoder: "Encoder", docs: "Texts") -> NDArray[np.float32]:
    """Return the vectors of all documents, shape (documents, dimension), in corpus order."""
    parts = [vectors for _, vectors in vector_parts(encoder, docs)]
    return np.concatenate(parts) if parts else np.zeros((0, encoder.dimension), np.float32)


def cached(encoder: "Encoder", docs: "Texts") -> int:
    """Return how many documents need no encoding any more."""
    starts = range(0, len(docs), PART)
    return sum(
        min(PART, len(docs) - start) for start in starts if _part(encoder, docs, start).exists()
    )


def _part(encoder: "Encoder", docs: "Texts", start: int) -> Path:
    key = digest(encoder.fingerprint, docs.fingerprint)[:32]
    return cache_folder("vectors") / key / f"{start:012d}.npy"
