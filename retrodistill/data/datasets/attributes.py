"""Attributes (metadata) of texts: typed columns of all fields but title and text, one row a text.

`Texts.attributes` reads them on demand, in a second pass over the source, and caches them beside
the texts. `read_attributes` reads them from a separate file.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.errors import DataError, did_you_mean
from retrodistill.base.files import SEAL, is_sealed, sealed, write_atomically
from retrodistill.base.logging import log
from retrodistill.base.manifest import digest
from retrodistill.data.datasets.records import fields_from
from retrodistill.data.lines import read_records, record_location

Fields: TypeAlias = tuple[str, Mapping[str, Any]]
"""The id of a text, and its fields other than title and text by name."""

Locate: TypeAlias = Callable[[int], str]
"""Returns the location of a row for messages, such as `corpus.jsonl:17`."""

LAYOUT = "attributes-3"
SKIPPED = b"skipped"
"""Key in a table's metadata: fields that cannot be a column, and why."""
IDS = ("_id", "id")
REMEDY = "Give a file of attributes (.jsonl, .parquet, .csv or .tsv, with a column _id)."
BATCH_ROWS = 16_384
MAX_FIELDS = 1000
TYPES = {
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({str}): pa.string(),
    frozenset({list}): pa.list_(pa.string()),
    frozenset({datetime}): pa.timestamp("us", "UTC"),
    frozenset({date}): pa.date32(),
    frozenset(): pa.null(),
}
"""Python types of the values of a column -> type of the column; other mixtures are errors."""

NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def cached_attributes(
    cache_stem: Path | None,
    owner: str,
    ids: pa.ChunkedArray,
    read: Callable[[], Iterable[Fields]],
    locate: Locate,
    names: Sequence[str] | None,
) -> pa.Table:
    """Return the columns of these names, from the cache beside the texts or else from their source.

    See `Texts.attributes`. `owner` names the texts in messages.
    """
    requested = None if names is None else list(dict.fromkeys(names))
    key = digest(LAYOUT, json.dumps(requested))[:16]
    path = cache_stem and cache_stem.with_name(f"{cache_stem.name}.attributes-{key}.arrow")
    table = _read_cached(path, len(ids)) if path else None
    if table is None:
        read_ids, table = table_of(read(), requested, locate)
        if not read_ids.equals(ids):
            raise DataError(
                f"the source of {owner} was changed after they were read. Reload the collection."
            )
        if not table.column_names:
            raise DataError(f"{owner} have no field beside title and text. {REMEDY}")
        if path:
            with suppress(OSError):  # a shared, read-only cache
                _write_cached(table, path)
    for reason in json.loads((table.schema.metadata or {}).get(SKIPPED, "[]")):
        log.info(f"an attribute of {owner} is skipped: {reason}")
    return table.replace_schema_metadata(None)


def read_attributes(path: Path, ids: Sequence[str]) -> pa.Table:
    """Return the columns of a file of attributes, with one row for each of `ids`, in their order.

    The file is .jsonl (or .jsonl.gz; `metadata` is treated as in a corpus), .parquet, or .csv or
    .tsv with a header; the id is in the column `_id` or `id`. In .csv and .tsv, types are inferred
    by Arrow, and an empty cell without quotes is a missing value. An id that is not in the file
    gets null in each column; their number is logged.

    Raises:
        DataError: the file is malformed, has no column beside the id, or has a duplicate id or one
            that is not among `ids`.

    """
    # Read ids and columns.
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file of attributes {path}. Check the path.")
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kind not in READERS:
        raise DataError(f"{path}: attributes are read from {', '.join(READERS)}, not {kind!r}.")
    read_ids, table, locate = READERS[kind](path)
    # Check that each id is present, known and unique.
    if read_ids.null_count:
        row = pc.index(read_ids.is_null(), True).as_py()
        raise DataError(f"{locate(row)}: the id is missing. Each row needs one.")
    requested = pa.array(ids, pa.string())
    matches = pc.index_in(read_ids, value_set=requested)
    if matches.null_count:
        row = pc.index(matches.is_null(), True).as_py()
        raise DataError(
            f"{locate(row)}: unknown id {read_ids[row].as_py()!r}: it is none of the "
            f"{len(requested):,} documents ({matches.null_count:,} rows have unknown ids). Do the "
            "attributes belong to another corpus?"
        )
    earliest = pc.index_in(read_ids, value_set=read_ids.combine_chunks())
    repeated = pc.not_equal(earliest, pa.array(range(len(read_ids)), pa.int32()))
    if pc.any(repeated).as_py():
        row = pc.index(repeated, True).as_py()
        raise DataError(
            f"{locate(row)}: duplicate id {read_ids[row].as_py()!r}, already at "
            f"{locate(earliest[row].as_py())}. Keep one of the two."
        )
    if not table.column_names:
        raise DataError(f"{path} has no column beside the ids. Add some, or omit the file.")
    # Bring the rows into the order of `ids`.
    rows = pc.index_in(requested, value_set=read_ids.combine_chunks())
    if rows.null_count:
        log.info(
            f"{path}: {rows.null_count:,} of {len(requested):,} documents have no attributes there"
        )
    return table.take(rows)


def table_of(
    texts: Iterable[Fields], names: Sequence[str] | None, locate: Locate
) -> tuple[pa.ChunkedArray, pa.Table]:
    """Return the ids and the columns of all texts.

    An absent or null field is a missing value; a column of whole numbers and other numbers becomes
    float64. Each of `names` must be a valid column; if `names` is None, fields that cannot be one
    are listed in the table's metadata.

    Raises:
        DataError: a requested field does not exist or cannot be a column, or there are too many
            fields.

    """
    columns = {name: _Column() for name in names or ()}
    seen: dict[str, None] = {}
    ids: list[pa.Array] = []
    rows, source = 0, iter(texts)
    # Grow the columns by batches; a field that appears late is null in the rows before.
    while batch := list(islice(source, BATCH_ROWS)):
        ids.append(pa.array([id for id, _ in batch], pa.string()))
        for _, fields in batch:
            seen.update(dict.fromkeys(fields))
        if names is None and len(seen) > MAX_FIELDS:
            raise DataError(
                f"up to {locate(rows + len(batch) - 1)} there are more than {MAX_FIELDS:,} fields, "
                f"such as {', '.join(list(seen)[-3:])}. Name the fields that you need."
            )
        for name in seen if names is None else ():
            columns.setdefault(name, _Column([pa.nulls(rows)]))
        for name, column in columns.items():
            column.grow([fields.get(name) for _, fields in batch], rows, locate)
        rows += len(batch)
    # Check the requested names, and collect the fields that cannot be a column.
    for name in names or ():
        if name not in seen:
            hint = did_you_mean(name, seen)
            raise DataError(f"no text has a field {name!r}.{hint} Known: {_listed(seen)}.")
    faults = [f"{name!r}: {column.fault}" for name, column in columns.items() if column.fault]
    if faults and names is not None:
        raise DataError(f"a field cannot be a column. {faults[0]}. Make it of one type.")
    whole = {name: column.whole() for name, column in columns.items() if not column.fault}
    table = pa.table(whole).replace_schema_metadata({SKIPPED: json.dumps(faults)})
    return pa.chunked_array(ids, pa.string()), table


@dataclass(slots=True)
class _Column:
    """A column that grows by batches, until its values are of types that do not mix."""

    chunks: list[pa.Array] = field(default_factory=list)
    first_rows: dict[type, int] = field(default_factory=dict)
    """The row of the first value of each type."""
    fault: str = ""
    """Why the field cannot be a column; empty as long as it can."""

    def grow(self, values: list[Any], start: int, locate: Locate) -> None:
        """Append a batch of values, or set `fault` if their types do not fit."""
        if self.fault:
            return
        # Types of the batch; tuples count as lists.
        types = set(map(type, values)) - {type(None)}
        if tuple in types:
            values = [list(value) if isinstance(value, tuple) else value for value in values]
            types = types - {tuple} | {list}
        # Note the first row of each new type, and check the mixture.
        for kind in types - self.first_rows.keys():
            self.first_rows[kind] = start + next(i for i, v in enumerate(values) if type(v) is kind)
        if frozenset(self.first_rows) not in TYPES:
            firsts = sorted(self.first_rows.items(), key=lambda item: item[1])[-2:]
            self.fault = ", but ".join(f"{locate(row)} holds {_kind(kind)}" for kind, row in firsts)
        elif list in types and (odd := _first_mixed_list(values)) is not None:
            self.fault = f"{locate(start + odd)} holds a list with other values than strings"
        else:
            try:
                self.chunks.append(pa.array(values, TYPES[frozenset(types)]))
            except (OverflowError, UnicodeEncodeError, pa.ArrowException) as error:
                self.fault = f"a value after {locate(start)} cannot be stored ({error})"

    def whole(self) -> pa.ChunkedArray:
        """Return the batches as one column."""
        target = TYPES[frozenset(self.first_rows)]
        return pa.chunked_array([chunk.cast(target, safe=False) for chunk in self.chunks], target)


def _kind(kind: type) -> str:
    return KINDS.get(kind, f"a {kind.__name__}")


def _first_mixed_list(values: list[Any]) -> int | None:
    """Return the position of the first list with anything but strings and None."""
    for position, value in enumerate(values):
        if value is not None and not all(v is None or type(v) is str for v in value):
            return position
    return None


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:20]) + (", ..." if len(listed) > 20 else "") or "none"


def _read_cached(path: Path, rows: int) -> pa.Table | None:
    """Return the columns in a cached file, or None if it is absent, damaged or out of date."""
    try:
        if not is_sealed(path):
            log.info(f"{path} is damaged: re-reading the attributes.")
            return None
        with pa.memory_map(str(path)) as source:
            content = source.read_buffer(source.size() - SEAL)
        table = pa.ipc.open_file(content).read_all()
    except (OSError, pa.ArrowException):
        return None
    return table if table.num_rows == rows else None


def _write_cached(table: pa.Table, path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_atomically(path, sealed(sink.getvalue().to_pybytes()))


Parsed: TypeAlias = tuple[pa.ChunkedArray, pa.Table, Locate]
"""The ids in a file, its other columns, and the locations of its rows."""


def _jsonl(path: Path) -> Parsed:
    locate = partial(record_location, path)
    parse = partial(fields_from, but=())
    ids, table = table_of(read_records(path, parse), None, locate)
    faults = json.loads(table.schema.metadata[SKIPPED])
    if faults:
        raise DataError(f"a field cannot be a column. {faults[0]}. Make it of one type.")
    return ids, table.replace_schema_metadata(None), locate


def _parquet(path: Path) -> Parsed:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        table.validate(full=True)  # strings that are not UTF-8
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}).") from error
    name = _id_column(path, table.column_names)
    try:
        ids = table[name].cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: column {name} must hold ids, which are strings ({error})."
        ) from error
    return ids, table.drop_columns([name]), lambda row: f"{path}, row {row + 1}"


def _separated(path: Path, *, delimiter: str) -> Parsed:
    import pyarrow.csv as arrow_csv

    names = next((names for _, names in _rows(path, delimiter)), [])
    name = _id_column(path, names)
    twice = {header for header in names if names.count(header) > 1}
    if twice:
        raise DataError(f"{path}:1: duplicate column {sorted(twice)[0]!r}. Rename one.")
    try:
        table = arrow_csv.read_csv(
            path,
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.string()},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for position, column in enumerate(table.columns):
        if pa.types.is_time(column.type):
            text = column.cast(pa.string())
            table = table.set_column(position, table.column_names[position], text)

    def line(row: int) -> str:
        return f"{path}:{next(islice(_rows(path, delimiter), row + 1, None))[0]}"

    for column_name in table.column_names:
        if column_name != name and pa.types.is_string(table[column_name].type):
            _log_almost_numbers(column_name, table[column_name], line)

    return table[name], table.drop_columns([name]), line


def _log_almost_numbers(name: str, column: pa.ChunkedArray, locate: Locate) -> None:
    """Log that a column became strings because a minority of its values are not numbers."""
    numbers = pc.match_substring_regex(column, NUMBER)
    count, present = pc.sum(numbers).as_py() or 0, len(column) - column.null_count
    if present / 2 < count < present:
        row = pc.index(numbers, False).as_py()
        verb = "is not a number" if present - count == 1 else "are not numbers"
        log.info(
            f"attribute {name} holds strings: {present - count:,} of {present:,} values {verb}, "
            f"first {column[row].as_py()!r} ({locate(row)}). Empty such cells to compare numbers."
        )


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with the numbers of their first lines."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            start = 1
            for row in reader:
                if row:
                    yield start, row
                start = reader.line_num + 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _id_column(path: Path, names: Sequence[str]) -> str:
    for name in IDS:
        if name in names:
            return name
    raise DataError(
        f"{path} needs a column _id or id, but its columns are: {_listed(names)}. Rename one."
    )


READERS: dict[str, Callable[[Path], Parsed]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".parquet": _parquet,
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
}
