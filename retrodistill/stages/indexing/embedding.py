"""Embed a collection: every document through a student, into an index folder.

The folder holds `index/` (vectors and ids), `model/` (the student, so that the folder can be
searched alone) and a manifest.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import IndexSettings
from retrodistill.base.config.search import parse_bytes
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import new_folder
from retrodistill.base.logging import log
from retrodistill.base.progress import duration
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.data.store.lineage import own_lineage
from retrodistill.data.store.vectors import cached, fill_vectors
from retrodistill.models.indexes import new_index, use_device
from retrodistill.models.indexes.folder import INDEX, MODEL
from retrodistill.models.inference.cuts import counted_cuts
from retrodistill.models.students.truncated import Truncated
from retrodistill.stages.indexing.build_index import QUERIES, Vectors, check_memory, fill, reference
from retrodistill.stages.indexing.record import write_record

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodistill.base.types import Index
    from retrodistill.data.datasets import Collection
    from retrodistill.models.students.dense import DenseEncoder

DEFAULTS = IndexSettings()

SAMPLE_DOCS, TIMED_DOCS = 256, 32
"""Documents whose tokens are counted, and of these the ones timed, for the estimate."""


def embed_collection(
    collection: "Collection",
    encoder: "DenseEncoder",
    *,
    out: Path,
    settings: IndexSettings = DEFAULTS,
    attributes: "pa.Table | None" = None,
    workload: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an index folder of all documents, and return it.

    Vectors go through the cache, so an interrupted command resumes, and several `workers` of an
    `executor` may encode; memory is that of the index beside one part of the documents, and at most
    `memory`. `dimensions` keeps the first ones of each vector, as
    Matryoshka training allows. `attributes` has a row for each document, in their order, for
    searches with a condition; `workload` has conditions as often as they will be asked, for
    vectors that lie accordingly. With `recall`, the index's effort is the fastest that finds this
    share of the exact ten best, chosen and checked with QUERIES queries of the collection. A search
    can show the documents' texts where the collection's `spec` still leads to them.

    Raises:
        ConfigError: the index is unknown, needs more memory than it may have or cannot keep the
            recall, or `out` exists already and `overwrite` is not set.
        DataError: the collection has no documents, or a vector is not finite.

    """
    docs = collection.docs
    if not len(docs):
        raise DataError(f"{collection.name} has no documents to embed.")
    dimension = settings.dimensions or encoder.dimension
    reader = Truncated(encoder, dimension, normalised=encoder.normalised)
    order = _order(attributes, workload) if workload else None
    if settings.memory is not None:
        check_memory(settings.index, len(docs), dimension, parse_bytes(settings.memory))
    with new_folder(out, overwrite=overwrite) as folder:
        filled = new_index(settings.index, dimension)
        use_device(filled, settings.device)
        _estimate(collection, encoder)
        start = time.perf_counter()
        with counted_cuts("documents"):
            fill_vectors(encoder, docs, executor=settings.executor, workers=settings.workers)
            vectors = Vectors.of(encoder, docs, dimension)
        fill(filled, vectors, docs, attributes, order)
        seconds = time.perf_counter() - start
        recall = settings.recall
        tuning = None if recall is None else _tuned(filled, collection, vectors, reader, recall)
        for part in (INDEX, MODEL):
            (folder / part).mkdir()
        filled.save(folder / INDEX)
        encoder.save(folder / MODEL)
        write_record(
            folder,
            collection,
            encoder=encoder.fingerprint,
            doc_encoder=encoder.doc_fingerprint,
            config=config or {},
            details={
                "model": encoder.name,
                "index": settings.index,
                "vectors": len(filled),
                "dimension": dimension,
                "attributes": [] if attributes is None else attributes.column_names,
                "tuning": tuning,
                "normalised": encoder.normalised,
                "dtype": str(encoder.dtype).removeprefix("torch."),
                "max_tokens": encoder.max_tokens,
                "seconds": round(seconds, 1),
                **own_lineage(encoder).write(folder),
            },
        )
    return Path(out)


def _order(attributes: "pa.Table | None", workload: Sequence[str]) -> NDArray[np.int64]:
    """Return the order of documents that suits the conditions of a workload."""
    from retrodistill.data.filters import Attributes, parse_where
    from retrodistill.models.indexes.layout import arranged

    if attributes is None:
        raise ConfigError("--workload has conditions on attributes: give --attributes too.")
    return arranged(Attributes.from_table(attributes), [parse_where(text) for text in workload])


def _tuned(
    index: "Index",
    collection: "Collection",
    vectors: Vectors,
    reader: Truncated,
    target: float,
) -> dict[str, Any] | None:
    """Set the index's effort by the collection's queries, or its documents if it has none."""
    from retrodistill.models.indexes.tuning import Tunable, tune

    if not isinstance(index, Tunable):
        log.info("--recall changes nothing: an index of this kind has no effort that could be set.")
        return None
    texts = collection.queries if len(collection.queries) else collection.docs
    rows = spread_rows(len(texts), QUERIES)
    asked = reader.encode_queries(texts.full_texts(rows))
    source = "queries" if len(collection.queries) else "documents"
    exact = reference(vectors, collection.docs)
    tuning = tune(index, exact, asked, target=target, source=source)
    held_out = "" if tuning.held_out is None else f", {tuning.held_out:.3f} on as many others"
    log.info(
        f"recall@{tuning.k} {tuning.chosen.recall:.3f} at {tuning.chosen.ms:.2f} ms a query "
        f"({tuning.queries} {source}){held_out}: {tuning.chosen.effort or 'nothing to set'}."
    )
    if tuning.held_out is not None and tuning.held_out < target:
        log.info(
            f"warning: on queries that the effort was not chosen with, recall@{tuning.k} is "
            f"{tuning.held_out:.3f}, below --recall {target:g}. Ask for a little more."
        )
    return tuning.to_dict()


def _estimate(collection: "Collection", encoder: "DenseEncoder") -> None:
    """Say how many documents, tokens, seconds and bytes this takes, from an even sample."""
    total = len(collection.docs) - cached(encoder, collection.docs)
    if not total:
        log.info(f"the vectors of all {len(collection.docs):,} documents are in the cache.")
        return
    sample = spread_rows(len(collection.docs), SAMPLE_DOCS)
    texts = collection.docs.full_texts(sample)
    counts = encoder.count_tokens(texts)
    tokens = float(counts.mean()) * total
    timed = spread_rows(len(texts), TIMED_DOCS)
    encoder.encode_docs(texts[:1])
    start = time.perf_counter()
    encoder.encode_docs([texts[place] for place in timed])
    seconds = (time.perf_counter() - start) / max(1, int(counts[timed].sum())) * tokens
    megabytes = total * encoder.dimension * 4 / 1e6
    log.info(
        f"{total:,} documents, about {tokens:,.0f} tokens, about {duration(seconds)}, "
        f"{megabytes:,.1f} MB of vectors."
    )
