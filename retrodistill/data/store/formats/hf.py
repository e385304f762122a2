"""`hf`: a folder that `save_to_disk` of the library datasets wrote.

A `Dataset`, or a `DatasetDict` of which all splits are read, with the columns query_id, doc_id and
score, or with PyLate's: query_id, document_ids and scores. The first is written. Other columns
are ignored, and no code that comes with a data set is run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrodistill.base.errors import DataError, MissingExtra
from retrodistill.base.files import new_folder
from retrodistill.data.store.formats.gathering import RecordFormat
from retrodistill.data.store.formats.nway import COLUMNS as PYLATE
from retrodistill.data.store.formats.nway import pylate_record
from retrodistill.data.store.formats.records import Relevant, ScoreRecord
from retrodistill.data.store.formats.texts import TextCollection
from retrodistill.data.store.run_table import COLUMNS
from retrodistill.data.store.runs import Run

BATCH = 1 << 10


def records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each row of each split."""
    number = 0
    for rows in _splits(path):
        columns = next((c for c in (COLUMNS, PYLATE) if set(c) <= set(rows.column_names)), None)
        if columns is None:
            raise DataError(
                f"{path} must have the columns {', '.join(COLUMNS)} or {', '.join(PYLATE)}, but "
                f"it has {', '.join(rows.column_names)}."
            )
        arrow = rows.select_columns(list(columns)).with_format("arrow")
        for table in arrow.iter(BATCH):
            for row in table.to_pylist():
                number += 1
                if columns == COLUMNS:
                    query, doc, score = row.values()
                    yield ScoreRecord(number, query, (doc,), (score,))
                else:
                    yield pylate_record(path, number, row)


def _splits(path: Path) -> list[Any]:
    """Return the tables of a folder."""
    datasets = _library(path)
    try:
        content = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as a folder of save_to_disk: {error}. Is it the right folder?"
        ) from error
    return list(content.values()) if isinstance(content, datasets.DatasetDict) else [content]


def _library(path: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(f"{path} needs datasets. Install it: pip install datasets") from error
    return datasets


def write(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a new folder with the columns query_id, doc_id and score.

    Raises:
        ConfigError: `path` exists already.

    """
    rows = _library(path).Dataset(run.table)
    with new_folder(path) as folder:
        rows.save_to_disk(str(folder))


FORMAT = RecordFormat(records, write)
