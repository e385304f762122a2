"""Embed a collection: every document through a student, into an index folder.

The folder holds `index/` (vectors and ids), `model/` (the student, so that the folder can be
searched alone) and a manifest.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.errors import DataError
from retrodistill.manifest import Manifest, digest_files, new_folder
from retrodistill.progress import duration, say
from retrodistill.registry import INDEXES
from retrodistill.store.vectors import cached, vector_parts

if TYPE_CHECKING:
    from retrodistill.datasets import Collection
    from retrodistill.students.dense import DenseEncoder
    from retrodistill.types import Index

KIND = "index"
INDEX, MODEL = "index", "model"
"""Subfolders of an index folder."""

SAMPLE_DOCS, TIMED_DOCS = 256, 32
"""Documents whose tokens are counted, and of these the ones timed, for the estimate."""


def embed_collection(
    collection: "Collection",
    encoder: "DenseEncoder",
    *,
    out: Path,
    index: str = "flat",
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an index folder of all documents, and return it.

    Vectors go through the cache, so an interrupted command goes on where it was; memory is that
    of the index beside one part of the documents. A search can show the documents' texts where
    the collection's `spec` still leads to them.

    Raises:
        ConfigError: the index is unknown, or `out` exists already and `overwrite` is not set.
        DataError: the collection has no documents, or a vector is not finite.

    """
    if not len(collection.docs):
        raise DataError(f"{collection.name} has no documents to embed.")
    with new_folder(out, overwrite=overwrite) as folder:
        filled: Index = INDEXES[index](encoder.dimension)
        _estimate(collection, encoder)
        start = time.perf_counter()
        _fill(filled, collection, encoder)
        seconds = time.perf_counter() - start
        for part in (INDEX, MODEL):
            (folder / part).mkdir()
        filled.save(folder / INDEX)
        encoder.save(folder / MODEL)
        Manifest(
            kind=KIND,
            fingerprint=digest_files(folder / INDEX),
            inputs={
                "collection": collection.fingerprint,
                "docs": collection.docs.fingerprint,
                "encoder": encoder.fingerprint,
            },
            config=config or {},
            details={
                "collection": collection.name,
                "data": collection.spec,
                "model": encoder.name,
                "index": index,
                "vectors": len(filled),
                "dimension": encoder.dimension,
                "normalised": encoder.normalised,
                "dtype": str(encoder.dtype).removeprefix("torch."),
                "max_tokens": encoder.max_tokens,
                "seconds": round(seconds, 1),
            },
        ).write(folder)
    return Path(out)


def _fill(index: "Index", collection: "Collection", encoder: "DenseEncoder") -> None:
    """Put part after part of the vectors into the index."""
    for rows, vectors in vector_parts(encoder, collection.docs):
        index.add(collection.docs.ids(rows), vectors)


def _estimate(collection: "Collection", encoder: "DenseEncoder") -> None:
    """Say how many documents, tokens, seconds and bytes this takes, from an even sample."""
    total = len(collection.docs) - cached(encoder, collection.docs)
    if not total:
        say(f"the vectors of all {len(collection.docs):,} documents are in the cache.")
        return
    sample = np.unique(np.linspace(0, len(collection.docs) - 1, SAMPLE_DOCS).astype(np.int64))
    texts = collection.docs.full_texts(sample)
    counts = encoder.count_tokens(texts)
    tokens = float(counts.mean()) * total
    timed = np.linspace(0, len(texts) - 1, min(TIMED_DOCS, len(texts))).astype(np.int64)
    encoder.encode_docs(texts[:1])
    start = time.perf_counter()
    encoder.encode_docs([texts[place] for place in timed])
    seconds = (time.perf_counter() - start) / max(1, int(counts[timed].sum())) * tokens
    megabytes = total * encoder.dimension * 4 / 1e6
    say(
        f"{total:,} documents, about {tokens:,.0f} tokens, about {duration(seconds)}, "
        f"{megabytes:,.1f} MB of vectors."
    )
