"""The format of a file, where its content leaves no doubt."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrodistill.base.errors import DataError
from retrodistill.base.manifest import FILE
from retrodistill.data.store.formats.nway import COLUMNS as PYLATE
from retrodistill.data.store.formats.sbert_labels import LABELS
from retrodistill.data.store.formats.sbert_scores import blocks, refuse_pickle
from retrodistill.data.store.run_table import COLUMNS

NESTED = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{')
"""Start of a file of `{query: {document: score}}`."""

NAMED = {
    "pylate": set(PYLATE),
    "flagembedding": {"query", "pos", "neg"},
    "tevatron": {"query_id", "positive_passages", "negative_passages"},
}
"""Columns that belong to one format only."""


def guess_format(path: Path) -> str:
    """Return the name of a file's format.

    Raises:
        DataError: the content fits several formats, or none, or cannot be read.

    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    refuse_pickle(path)
    head = next(blocks(path), b"")
    if head.startswith(b"PAR1"):
        return _of_parquet(path)
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    line = text.split("\n", 1)[0]
    if text[:1] in ("{", "["):
        return _of_json(path, text, line)
    return _of_columns(path, line)


def _of_folder(path: Path) -> str:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return "hf"
    if (path / FILE).exists():
        raise DataError(f"{path} is a folder of retrodistill itself: it needs no import.")
    raise DataError(f"{path} is not a folder that save_to_disk of datasets wrote (format hf).")


def _of_parquet(path: Path) -> str:
    if path.suffix != ".parquet":
        raise DataError(f"{path} is Parquet by its content: rename it to end in .parquet.")
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Recreate it.") from error
    if set(COLUMNS) <= set(schema.names):
        return "parquet"
    return _of_names(path, list(schema.names))


def _of_json(path: Path, text: str, line: str) -> str:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        row = None  # an object of many lines, or a line longer than a block
    if NESTED.match(text) and (
        not isinstance(row, dict) or all(isinstance(value, dict) for value in row.values())
    ):
        return "sbert-scores"
    match row:
        case [_, [_, _], *_]:
            return "colbert"
        case dict() if set(COLUMNS) <= row.keys():
            return "jsonl"
        case dict():
            return _of_names(path, list(row))
    raise _doubt(path, line, "sbert-scores, colbert, jsonl, pylate, flagembedding, tevatron")


def _of_names(path: Path, names: list[str]) -> str:
    """Return the format that has these columns."""
    for name, columns in NAMED.items():
        if columns <= set(names):
            return name
    if "query" in names and "positive" in names and set(LABELS) & set(names):
        return "sbert-labels"
    raise _doubt(
        path, f"columns {', '.join(names)}", "jsonl, parquet, sbert-labels, " + ", ".join(NAMED)
    )


def _of_columns(path: Path, line: str) -> str:
    fields = line.rstrip("\r").split("\t")
    words = line.split()
    if len(fields) == 5 and _is_number(fields[0]) and _is_number(fields[1]):
        return "margin-mse"
    if len(words) == 6 and _is_number(words[4]):
        return "trec"
    # Whole numbers may be the ids of triples.
    if len(fields) == 3 and _is_number(fields[2]) and not fields[2].strip().lstrip("-").isdigit():
        return "tevatron-run"
    raise _doubt(path, line, "tevatron-run, margin-mse, trec")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _doubt(path: Path, start: str, candidates: str) -> DataError:
    return DataError(
        f"the format of {path} is not certain (it starts with {start[:80]!r}). Name it; it may be "
        f"one of {candidates}."
    )
