"""Vectors of a collection's documents, computed once for each model and kept in the cache.

Mining, teaching and indexing with the same encoder share them. They lie in parts of PART
documents, each named by a hash of its texts and written whole or not at all: an interrupted
computation goes on where it was, documents that are added cost only themselves, and one that has
changed costs its part.
"""

import io
from collections.abc import Iterator, Sequence
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
            texts = docs.full_texts(rows)
            path = _part(encoder, texts)
            if not path.exists():
                vectors = encoder.encode_docs(texts)
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
    parts = (range(start, min(start + PART, len(docs))) for start in range(0, len(docs), PART))
    return sum(len(rows) for rows in parts if _part(encoder, docs.full_texts(rows)).exists())


def _part(encoder: "Encoder", texts: Sequence[str]) -> Path:
    name = digest(*(text.encode(errors="surrogatepass") for text in texts))
    return cache_folder("vectors") / encoder.fingerprint[:32] / f"{name[:32]}.npy"
