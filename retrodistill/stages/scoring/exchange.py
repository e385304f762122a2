"""Import and export of score files: from other tools' files to a store, and back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError
from retrodistill.base.files import refuse_existing
from retrodistill.base.logging import log
from retrodistill.base.types import SCALES
from retrodistill.data.store.formats import guess_format, read_scores, write_scores
from retrodistill.data.store.formats.records import OnConflict
from retrodistill.data.store.lineage import Lineage
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import ScoreStore
from retrodistill.stages.scoring.fill_store import store_scores

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def import_scores(
    collection: "Collection",
    path: Path,
    out: Path,
    *,
    format: str | None = None,
    scale: str = "unknown",
    on_conflict: OnConflict = "refuse",
    config: Mapping[str, Any] | None = None,
) -> ScoreStore:
    """Import a score file into a store, and return the store.

    `format` is a name of `retrodistill.base.registry.FORMATS` (None: by the file's content), and
    `scale` one of `retrodistill.base.types.SCALES`.

    Raises:
        ConfigError: the format or the scale is unknown, or the format cannot be guessed.
        DataError: the file is malformed, or names a query or document that the collection lacks.

    """
    if scale not in SCALES:
        raise ConfigError(f"scale must be one of {', '.join(SCALES)}, but it is {scale!r}.")
    imported = read_scores(path, format or guess_format(path), collection, on_conflict=on_conflict)
    labels = sum(map(len, imported.positives.values()))
    log.info(
        f"{len(imported.run):,} scores of {len(imported.run.query_ids):,} queries in {path}"
        + (f", {labels:,} of them labelled relevant" if labels else "")
    )
    scores = replace(imported.run, lineage=Lineage(unrecorded=(path.name,)))
    return store_scores(collection, scores, out, scale=scale, config=config)


def export_scores(
    scores: Run,
    path: Path,
    *,
    format: str,
    collection: "Collection | None" = None,
    split: str = "train",
    overwrite: bool = False,
) -> Path:
    """Write scores as a file of another tool, and return it.

    Formats that distinguish relevant documents read them from the collection's split.

    Raises:
        ConfigError: the format is unknown or needs a collection, or `path` exists already and
            `overwrite` is not set.
        DataError: an id cannot be written in this format, or is not in the collection.

    """
    refuse_existing(path, overwrite=overwrite, folder=False)
    relevant = None
    if collection is not None and split in collection.splits:
        relevant = collection.relevant(split)
    write_scores(path, format, scores, relevant=relevant, collection=collection)
    return path
