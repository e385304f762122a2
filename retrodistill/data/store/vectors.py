"""Vectors of a collection's documents, cached: computed once for each document side of a model.

Mining, teaching and indexing with the same encoder share them, and so do models that differ in
their query towers alone. They lie in parts of PART
documents, each named by a hash of its texts and written whole or not at all: an interrupted
computation resumes where it was, documents that are added cost only themselves, and one that has
changed costs its part. A part ends with a checksum, which is compared whenever the vectors are
read (5 GB a second once they are in memory): a damaged part is encoded again.
"""

import io
import mmap
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Executor
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.executor import execute
from retrodistill.base.files import is_sealed, sealed, write_atomically
from retrodistill.base.logging import log
from retrodistill.base.manifest import cache_folder, digest
from retrodistill.base.progress import bar
from retrodistill.base.types import doc_fingerprint_of
from retrodistill.data.store.locks import claimed

if TYPE_CHECKING:
    from retrodistill.base.types import Encoder
    from retrodistill.data.datasets import Texts

PART = 2048
"""Documents in a part: what an interruption can cost."""
WAIT = 0.2
"""Seconds between two looks at what other workers hold."""

Part = tuple[range, Path]
"""Rows of documents, and the file of their vectors."""


def vector_files(encoder: "Encoder", docs: "Texts") -> Iterator[Path]:
    """Yield the file of each part, in corpus order, encoding what is not cached or damaged."""
    with bar("encoding documents", len(docs)) as advance:
        for start in range(0, len(docs), PART):
            rows = np.arange(start, min(start + PART, len(docs)))
            texts = docs.full_texts(rows)
            path = _part(encoder, texts)
            if not path.exists():
                _encode(encoder, docs, rows, texts, path)
            elif not is_sealed(path):
                log.info(f"{path} is damaged: its {len(rows):,} documents are encoded again.")
                _encode(encoder, docs, rows, texts, path)
            yield path
            advance(len(rows))


def mapped(file: Path) -> NDArray[np.float32]:
    """Return the vectors of a part, which are read from its file as they are used.

    The file must come from `vector_files`, which has compared its checksum.
    """
    vectors: NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
    return vectors


def release(vectors: NDArray[np.float32]) -> None:
    """Give back the memory of a mapped part, which is read from its file again when it is used."""
    if (source := getattr(vectors, "_mmap", None)) is not None and hasattr(mmap, "MADV_DONTNEED"):
        source.madvise(mmap.MADV_DONTNEED)


def doc_vectors(encoder: "Encoder", docs: "Texts") -> NDArray[np.float32]:
    """Return the vectors of all documents, shape (documents, dimension), in corpus order."""
    vectors = np.empty((len(docs), encoder.dimension), np.float32)
    for number, file in enumerate(vector_files(encoder, docs)):  # one file open at a time
        vectors[number * PART : (number + 1) * PART] = mapped(file)
    return vectors


def cached(encoder: "Encoder", docs: "Texts") -> int:
    """Return how many documents are encoded already."""
    return len(docs) - sum(len(rows) for rows, _ in _missing(encoder, docs))


def fill_vectors(
    encoder: "Encoder",
    docs: "Texts",
    *,
    executor: Executor = "processes",
    workers: int | None = None,
) -> None:
    """Encode in several workers the parts that are not cached yet.

    No part is encoded twice, except one whose worker dies, which another worker takes over. Encoder
    and documents travel to the workers by their paths. In this process alone (`local`) nothing is
    done: `doc_vectors` encodes them.

    Raises:
        ConfigError: the encoder has no path, its numbers are of another type on the workers, or
            all workers die.
        DataError: the encoder gives NaN or infinity.
        MissingExtra: Ray is not installed.

    """
    missing = [] if executor == "local" else _missing(encoder, docs)
    if missing:
        execute(
            partial(_share, encoder, doc_fingerprint_of(encoder), docs, missing),
            executor=executor,
            workers=workers,
            done=lambda: sum(path.exists() for _, path in missing),
        )


def _share(encoder: "Encoder", fingerprint: str, docs: "Texts", parts: list[Part]) -> None:
    """Encode, as one worker of several, the parts that no other worker holds, until all exist."""
    if doc_fingerprint_of(encoder) != fingerprint:
        raise ConfigError(
            "the encoder on a worker differs from the one here: its files have changed, or its "
            "number type is another. Give --precision float32 or bfloat16 in place of auto."
        )
    with bar("encoding documents", sum(len(rows) for rows, _ in parts)) as advance:
        while parts:
            idle, remaining = True, []
            for rows, path in parts:
                with claimed(path) as is_ours:
                    if is_ours and not path.exists():
                        idle = False
                        numbers = np.array(rows)
                        _encode(encoder, docs, numbers, docs.full_texts(numbers), path)
                if path.exists():
                    advance(len(rows))
                else:
                    remaining.append((rows, path))
            parts = remaining
            if parts and idle:
                time.sleep(WAIT)


def _encode(
    encoder: "Encoder", docs: "Texts", rows: NDArray[np.int64], texts: list[str], path: Path
) -> None:
    """Encode a part's texts, and write their vectors whole or not at all."""
    vectors = encoder.encode_docs(texts)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        name = docs[int(rows[bad[0]])].id
        raise DataError(
            f"the encoder gives NaN or infinity for document {name!r} "
            f"({len(bad)} of {len(rows)}). Check the model."
        )
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    write_atomically(path, sealed(buffer.getvalue()))


def _missing(encoder: "Encoder", docs: "Texts") -> list[Part]:
    """Return the parts that are not in the cache."""
    parts = (range(start, min(start + PART, len(docs))) for start in range(0, len(docs), PART))
    named = ((rows, _part(encoder, docs.full_texts(rows)).absolute()) for rows in parts)
    return [(rows, path) for rows, path in named if not path.exists()]


def _part(encoder: "Encoder", texts: Sequence[str]) -> Path:
    name = digest(*(text.encode(errors="surrogatepass") for text in texts))
    return cache_folder("vectors") / doc_fingerprint_of(encoder)[:32] / f"{name[:32]}.npy"
