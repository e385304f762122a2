"""Rows of named values, as JSON Lines (gzipped or not) or as Parquet."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from retrodistill.base.errors import DataError
from retrodistill.base.files import new_file
from retrodistill.data.lines import numbered_lines, write_lines
from retrodistill.data.store.formats.records import place

BATCH = 1 << 10
BLOCK = 1 << 22
"""Bytes of text parsed at a time."""


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) for each line that is not blank."""
    for number, line in numbered_lines(path):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: {line[:80]!r} is not UTF-8. Convert the file to UTF-8."
            ) from error
        yield number, text


def tab_separated(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """Yield the lines as columns, fast.

    Raises:
        pa.ArrowException, OSError: a line does not fit, or the file cannot be read.

    """
    reader = csv.open_csv(
        path,
        read_options=csv.ReadOptions(column_names=list(columns), block_size=BLOCK),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=csv.ConvertOptions(column_types=columns, null_values=[]),
    )
    with reader:
        yield from reader


def json_lines(path: Path, form: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value) for each line that is not blank; `form` says what a line is."""
    for number, line in text_lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: a line must be {form}, but it is not JSON ({error}): "
                f"{line[:80]!r}."
            ) from error
        yield number, value


def read_rows(
    path: Path, columns: Sequence[str], form: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, row) for each line or row, with at least these columns.

    Raises:
        DataError: a column is missing, a line is not a JSON object, or the file cannot be read.

    """
    rows = _parquet_rows(path) if path.suffix == ".parquet" else json_lines(path, form)
    for number, row in rows:
        if not isinstance(row, dict) or not all(name in row for name in columns):
            raise DataError(
                f"{place(path, number)}: a row must be {form}, but it has "
                f"{', '.join(row) if isinstance(row, dict) else 'no names'}."
            )
        yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Recreate it.") from error


def lists_of(path: Path, number: int, row: dict[str, Any], names: Sequence[str]) -> list[list[Any]]:
    """Return values of a row that must be lists.

    Raises:
        DataError: one is not a list.

    """
    for name in names:
        if not isinstance(row[name], list):
            raise DataError(f"{place(path, number)}: {name} must be a list, not {row[name]!r:.60}.")
    return [row[name] for name in names]


def write_rows(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet or, by any other name, as JSON lines; whole or not at all."""
    if path.suffix != ".parquet":
        write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))
        return
    stream = iter(rows)
    with new_file(path) as aside, pq.ParquetWriter(aside, schema) as writer:
        while batch := list(islice(stream, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
