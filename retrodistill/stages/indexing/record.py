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
) -> None:
    """Write the manifest of a filled index folder; `encoder` is the model's fingerprint."""
    Manifest(
        kind=KIND,
        fingerprint=digest_files(folder / INDEX),
        inputs={
            "collection": collection.fingerprint,
            "docs": collection.docs.fingerprint,
            "encoder": encoder,
        },
        config=config,
        files=model_files(folder, MODEL),
        details={"collection": collection.name, "data": collection.spec, **details},
    ).write(folder)
