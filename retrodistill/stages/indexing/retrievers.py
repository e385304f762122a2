"""Index folders of students without dense vectors: their retriever over all documents, saved."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import EmbedConfig
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import new_folder
from retrodistill.base.logging import log
from retrodistill.base.progress import duration
from retrodistill.base.registry import RETRIEVERS
from retrodistill.base.types import RetrieverOptions
from retrodistill.data.store.lineage import model_lineage
from retrodistill.models.indexes.folder import INDEX, MODEL, write_ids
from retrodistill.models.retrievers import load_retriever
from retrodistill.stages.indexing.record import write_record

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.models.students.kinds import StudentKind

DENSE_ONLY = (
    "index",
    "device",
    "recall",
    "dimensions",
    "attributes",
    "workload",
    "memory",
    "executor",
    "workers",
)
"""Settings of `embed` for dense vectors."""


def check_settings(kind: "StudentKind", config: EmbedConfig) -> None:
    """Check that a kind of student can be indexed, with these settings.

    Raises:
        ConfigError: it only reranks, or a setting is for dense vectors.

    """
    if kind.retriever not in RETRIEVERS:
        raise ConfigError(
            f"model {config.model!r} is a {kind.noun}, which reranks and finds nothing by itself: "
            f"score with --teacher {kind.teacher}:{config.model}."
        )
    defaults = {name: EmbedConfig.__dataclass_fields__[name].default for name in DENSE_ONLY}
    for name, default in defaults.items():
        if getattr(config, name) != default:
            raise ConfigError(
                f"--{name} is for models with one dense vector a text, but {config.model!r} is a "
                f"{kind.noun}: omit it."
            )


def embed_with_retriever(
    collection: "Collection",
    kind: "StudentKind",
    model: str,
    out: Path,
    *,
    options: RetrieverOptions,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the index folder of a sparse or late-interaction student, and return it.

    Raises:
        ConfigError: the model cannot be used, or `out` exists and `overwrite` is not set.
        DataError: the collection has no documents.

    """
    docs = collection.docs
    if not len(docs):
        raise DataError(f"{collection.name} has no documents to embed.")
    with new_folder(out, overwrite=overwrite) as folder:
        started = time.perf_counter()
        retriever: Any = load_retriever(f"{kind.retriever}:{model}", docs, options)
        for part in (INDEX, MODEL):
            (folder / part).mkdir()
        retriever.save(folder / INDEX)
        seconds = time.perf_counter() - started
        write_ids(folder / INDEX, docs.ids())
        retriever.encoder.model.save(str(folder / MODEL), safe_serialization=True)
        write_record(
            folder,
            collection,
            encoder=retriever.fingerprint,
            config=config or {},
            details={
                "model": model,
                "retriever": kind.retriever,
                "documents": len(docs),
                "bytes": retriever.nbytes,
                "max_tokens": options.max_tokens,
                "seconds": round(seconds, 1),
                **model_lineage(model).write(folder),
            },
        )
    log.info(
        f"{len(docs):,} documents indexed for {kind.noun} search in {duration(seconds)}, "
        f"{retriever.nbytes / 1e6:,.1f} MB."
    )
    return Path(out)
