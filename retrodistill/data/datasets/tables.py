"""Read .jsonl, .csv, .tsv and .parquet files as rows, and detect the columns of id, title and text.

All but Parquet may be gzipped. A column is named by an option, or guessed from common names.
"""

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from retrodistill.base.errors import DataError, did_you_mean
from retrodistill.data.lines import DAMAGE, decoded, numbered_lines, numbered_records, opened

Row = tuple[str, Mapping[str, Any]]
"""Location of a row, such as `log.csv:17`, and its values by column."""

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")

ID = ("_id", "id", "doc_id", "docid", "doc-id", "pid", "docno", "key")
QUERY_ID = ("_id", "id", "query_id", "query-id", "queryid", "qid")
TEXT = (
    "text",
    "contents",
    "content",
    "body",
    "passage",
    "document",
    "doc",
    "paragraph",
    "abstract",
    "description",
    "answer",
)
QUERY = ("query", "text", "question", "query_text", "search", "search_term", "q", "utterance")
TITLE = ("title", "headline", "heading", "subject", "name")


def kind_of(path: Path) -> str:
    """Return the suffix of a file in lower case, ignoring .gz."""
    named = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return named.suffix.lower()


def table_rows(path: Path, headers: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of a table.

    `headers` are lower-case names, one of which a header must contain: a first line without any is
    a row, and the columns are numbered `1`, `2`, ... Without `headers`, the first line is a header.

    Raises:
        DataError: the file is damaged, or a row cannot be read; file and line are named.

    """
    kind = kind_of(path)
    if kind == ".jsonl":
        for number, record in numbered_records(path, _mapping):
            yield f"{path}:{number}", record
    elif kind == ".parquet":
        yield from _parquet_rows(path)
    else:
        yield from _delimited_rows(path, kind, headers)


def column(
    names: Iterable[str], guesses: Sequence[str], requested: str | None, *, role: str, path: Path
) -> str | None:
    """Return the column of a role: the requested one, or the first guess that exists.

    Raises:
        DataError: the requested column does not exist.

    """
    names = list(names)
    if requested is not None:
        if requested not in names:
            raise DataError(
                f"{path} has no column {requested!r} for the {role}."
                f"{did_you_mean(requested, names)} It has: {', '.join(names)}."
            )
        return requested
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.strip().lower(), name)
    return next((lower[guess] for guess in guesses if guess in lower), None)


def needed(chosen: str | None, names: Iterable[str], *, role: str, path: Path, hint: str) -> str:
    """Return a required column.

    Raises:
        DataError: the column was neither named nor guessed.

    """
    if chosen is None:
        raise DataError(
            f"{path} has no column for the {role}: its columns are {', '.join(names)}. {hint}"
        )
    return chosen


def _mapping(record: Any) -> Mapping[str, Any]:
    if not isinstance(record, Mapping):
        raise DataError(f"expected an object, but it is {repr(record)[:60]}.")
    return record


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None


def _delimited_rows(path: Path, kind: str, headers: Sequence[str]) -> Iterator[Row]:
    split = _tab_fields if kind == ".tsv" else _comma_fields
    names: list[str] | None = None
    for number, fields in split(path):
        if names is None:
            lower = [field.strip().lower() for field in fields]
            headed = not headers or any(name in headers for name in lower)
            names = fields if headed else [str(position + 1) for position in range(len(fields))]
            if len(set(names)) < len(names):
                raise DataError(f"{path}:{number}: two columns have the same name.")
            if headed:
                continue
        if len(fields) != len(names):
            raise DataError(
                f"{path}:{number}: {len(fields)} columns, but the first line has {len(names)}."
            )
        yield f"{path}:{number}", dict(zip(names, fields, strict=True))


def _tab_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, raw in numbered_lines(path):
        line = decoded(f"{path}:{number}", raw)[0]
        yield number, [_unquoted(field) for field in line.split("\t")]


def _unquoted(field: str) -> str:
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def _comma_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row, which may span lines, with the number of its first line."""
    csv.field_size_limit(sys.maxsize)  # a whole document may be one field
    number = 0
    try:
        with opened(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            first_line = text.readline()
            delimiter = ";" if first_line.count(";") > first_line.count(",") else ","
            reader = csv.reader(chain([first_line], text), delimiter=delimiter)
            for fields in reader:
                if any(fields):
                    yield number + 1, fields
                number = reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}:{number + 1}: not CSV: {error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 after line {number}: {error}.") from None
    except DAMAGE as error:
        raise DataError(f"{path}: damaged after line {number} ({error}).") from None
