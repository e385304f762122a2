"""The layout of an index folder: `index/`, `model/`, and a manifest of kind `index`."""

import json
from collections.abc import Sequence
from pathlib import Path

from retrodistill.base.errors import DataError

KIND = "index"
"""Kind of the manifest."""

INDEX, MODEL = "index", "model"
"""Subfolders."""

IDS = "ids.json"


def write_ids(folder: Path, ids: Sequence[str]) -> None:
    """Write the documents' ids, in the order of their rows."""
    (folder / IDS).write_text(json.dumps(list(ids), ensure_ascii=False), encoding="utf-8")


def read_ids(folder: Path) -> list[str]:
    """Return the documents' ids, in the order of their rows.

    Raises:
        DataError: the file is missing or damaged.

    """
    try:
        ids: list[str] = json.loads((folder / IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / IDS} cannot be read ({error}). Embed again.") from error
    return ids
