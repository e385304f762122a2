"""Common score formats: reading and writing.

    imported = read_scores(Path("bert_cat_scores.tsv"), "margin-mse")
    write_scores(Path("scores.jsonl"), "pylate", imported.run)

Scores come and go as float32, bit by bit. Each module of this package is a family of formats.
"""

from pathlib import Path

from retrodistill.base.registry import FORMATS
from retrodistill.data.store.formats.guess import guess_format
from retrodistill.data.store.formats.records import Format, Imported, OnConflict, Relevant
from retrodistill.data.store.formats.texts import TextCollection
from retrodistill.data.store.runs import Run

__all__ = ["FORMATS", "Imported", "guess_format", "read_scores", "write_scores"]


def read_scores(
    path: Path,
    name: str,
    collection: TextCollection | None = None,
    *,
    on_conflict: OnConflict = "refuse",
) -> Imported:
    """Return the scores of a file of the named format, and what it calls relevant.

    A pair that is given several times with the same score is one row. `collection` finds the
    ids of texts. `on_conflict="mean"` takes the mean of a pair's different scores.

    Raises:
        ConfigError: the format is unknown, or holds texts and there is no collection.
        DataError: the file is not of this format, or a pair has scores that differ.

    """
    format: Format = FORMATS[name]
    return format.read(Path(path), collection, on_conflict)


def write_scores(
    path: Path,
    name: str,
    run: Run,
    *,
    relevant: Relevant | None = None,
    collection: TextCollection | None = None,
) -> None:
    """Write a run as a file of the named format, whole or not at all.

    Formats that distinguish relevant documents need `relevant`, and skip queries that have
    not both; how many is logged. Formats of texts need the collection.

    Raises:
        ConfigError: the format is unknown, or what it needs is not given.
        DataError: an id cannot be written in this format, or is not in the collection.

    """
    format: Format = FORMATS[name]
    format.write(Path(path), run, relevant, collection)
