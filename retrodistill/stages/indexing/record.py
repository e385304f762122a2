"""The manifest of an index folder, whatever kind of student it holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.manifest import Manifest, digest_files, model_files
from retrodistill.models.indexes.folder import INDEX, KIND, MODEL

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def write_record(
    folder: Path,
    collection: "Collection",
    *,
    encoder: str,
    config: Mapping[str, Any],
    details: Mapping[str, Any],
    doc_encoder: str | None = None,
) -> None:
    """Write the manifest of a filled index folder.

    `encoder` is the model's fingerprint, and `doc_encoder` that of its document side, by which
    other models may search the index.
    """
    model = {"encoder": encoder} | ({"doc_encoder": doc_encoder} if doc_encoder else {})
    Manifest(
        kind=KIND,
        fingerprint=digest_files(folder / INDEX),
        inputs={
            "collection": collection.fingerprint,
            "docs": collection.docs.fingerprint,
            **model,
        },
        config=config,
        files=model_files(folder, MODEL),
        details={"collection": collection.name, "data": collection.spec, **details},
    ).write(folder)
