"""What a collection says of a text beside title and text: typed columns, a row a text.

`Texts.attributes` reads them in a second pass over the source, when they are asked for, and keeps
them beside the cached texts. `read_attributes` reads them from a file of their own.
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
from retrodistill.data.lines import place_of_record, read_records

Fields: TypeAlias = tuple[str, Mapping[str, Any]]
"""The id of a text, and its further fields by name."""

Place: TypeAlias = Callable[[int], str]
"""Names where a row stands, for messages."""

LAYOUT = "attributes-2"
LEFT_OUT = b"left out"
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
"""Which Python types may stand in one column, and what it then is."""

NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def cached_attributes(
    beside: Path | None,
    whose: str,
    ids: pa.ChunkedArray,
    read: Callable[[], Iterable[Fields]],
    place: Place,
    names: Sequence[str] | None,
) -> pa.Table:
    """Return the columns of these names, from a file `beside` if they were read before.

    See `Texts.attributes`.
    """
    wanted = None if names is None else list(dict.fromkeys(names))
    key = digest(LAYOUT, json.dumps(wanted))[:16]
    path = beside and beside.with_name(f"{beside.name}.attributes-{key}.arrow")
    table = _kept(path, len(ids)) if path else None
    if table is None:
        read_ids, table = table_of(read(), wanted, place)
        if not read_ids.equals(ids):
            raise DataError(
                f"the source of {whose} was changed after they were read. Load the collection anew."
            )
        if not table.column_names:
            raise DataError(f"{whose} have no field beside title and text. {REMEDY}")
        if path:
            with suppress(OSError):  # a cache of others, to be read only
                _keep(table, path)
    for reason in json.loads((table.schema.metadata or {}).get(LEFT_OUT, "[]")):
        log.info(f"an attribute of {whose} is left out: {reason}")
    return table.replace_schema_metadata(None)


def read_attributes(path: Path, ids: Sequence[str]) -> pa.Table:
    """Return the columns of a file of attributes, a row for each of these ids, in their order.

    The file is .jsonl (or .jsonl.gz; `metadata` is treated as in a corpus), .parquet, or .csv or
    .tsv with a line of column names; the id is in the column `_id` or `id`. In .csv and .tsv, the
    types are guessed as Arrow does it, and an empty cell without quotes is a missing value. An id
    that the file lacks has null in each column; how many there are is said.

    Raises:
        DataError: the file is not in order, has no column beside the id, or has an id twice or one
            that is none of `ids`.

    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file of attributes {path}. Check the path.")
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kind not in READERS:
        raise DataError(f"{path}: attributes are read from {', '.join(READERS)}, not {kind!r}.")
    found, table, place = READERS[kind](path)
    if found.null_count:
        row = pc.index(found.is_null(), True).as_py()
        raise DataError(f"{place(row)}: the id is missing. Each row needs one.")
    own = pa.array(ids, pa.string())
    known = pc.index_in(found, value_set=own)
    if known.null_count:
        row = pc.index(known.is_null(), True).as_py()
        raise DataError(
            f"{place(row)}: id {found[row].as_py()!r} is none of the {len(own):,} documents "
            f"({known.null_count:,} such rows in all). Do the attributes belong to another corpus?"
        )
    first = pc.index_in(found, value_set=found.combine_chunks())
    twice = pc.not_equal(first, pa.array(range(len(found)), pa.int32()))
    if pc.any(twice).as_py():
        row = pc.index(twice, True).as_py()
        raise DataError(
            f"{place(row)}: id {found[row].as_py()!r} is taken already, by "
            f"{place(first[row].as_py())}. Keep one of the two."
        )
    if not table.column_names:
        raise DataError(f"{path} has no column beside the ids. Give it some, or leave it out.")
    rows = pc.index_in(own, value_set=found.combine_chunks())
    if rows.null_count:
        log.info(f"{path}: {rows.null_count:,} of {len(own):,} documents have no attributes there")
    return table.take(rows)


def table_of(
    texts: Iterable[Fields], names: Sequence[str] | None, place: Place
) -> tuple[pa.ChunkedArray, pa.Table]:
    """Return the ids and the columns of all texts.

    A field that is absent or null is missing; whole numbers among numbers are numbers. Of `names`,
    each must be a column; if it is None, what cannot be one is noted in the table's metadata.

    Raises:
        DataError: there is no field of a name, or it cannot be a column; or too many fields.

    """
    columns = {name: _Column() for name in names or ()}
    seen: dict[str, None] = {}
    ids: list[pa.Array] = []
    rows, source = 0, iter(texts)
    while batch := list(islice(source, BATCH_ROWS)):
        ids.append(pa.array([id for id, _ in batch], pa.string()))
        for _, fields in batch:
            seen.update(dict.fromkeys(fields))
        if names is None and len(seen) > MAX_FIELDS:
            raise DataError(
                f"up to {place(rows + len(batch) - 1)} there are more than {MAX_FIELDS:,} fields, "
                f"such as {', '.join(list(seen)[-3:])}. Name those that you need."
            )
        for name in seen if names is None else ():
            columns.setdefault(name, _Column([pa.nulls(rows)]))
        for name, column in columns.items():
            column.grow([fields.get(name) for _, fields in batch], rows, place)
        rows += len(batch)
    for name in names or ():
        if name not in seen:
            hint = did_you_mean(name, seen)
            raise DataError(f"no text has a field {name!r}.{hint} Known: {_listed(seen)}.")
    faults = [f"{name!r}: {column.fault}" for name, column in columns.items() if column.fault]
    if faults and names is not None:
        raise DataError(f"a field cannot be a column. {faults[0]}. Make it of one type.")
    whole = {name: column.whole() for name, column in columns.items() if not column.fault}
    table = pa.table(whole).replace_schema_metadata({LEFT_OUT: json.dumps(faults)})
    return pa.chunked_array(ids, pa.string()), table


@dataclass(slots=True)
class _Column:
    """A column that grows by batches, until two of its values do not fit together."""

    chunks: list[pa.Array] = field(default_factory=list)
    first: dict[type, int] = field(default_factory=dict)
    """The row of the first value of each type."""
    fault: str = ""

    def grow(self, values: list[Any], start: int, place: Place) -> None:
        """Add values, or note why they do not fit."""
        if self.fault:
            return
        types = set(map(type, values)) - {type(None)}
        if tuple in types:
            values = [list(value) if isinstance(value, tuple) else value for value in values]
            types = types - {tuple} | {list}
        for new in types - self.first.keys():
            self.first[new] = start + next(i for i, v in enumerate(values) if type(v) is new)
        if frozenset(self.first) not in TYPES:
            firsts = sorted(self.first.items(), key=lambda item: item[1])[-2:]
            self.fault = ", but ".join(f"{place(row)} holds {_kind(own)}" for own, row in firsts)
        elif list in types and (odd := _odd_list(values)) is not None:
            self.fault = f"{place(start + odd)} holds a list of other things than strings"
        else:
            try:
                self.chunks.append(pa.array(values, TYPES[frozenset(types)]))
            except (OverflowError, UnicodeEncodeError, pa.ArrowException) as error:
                self.fault = f"a value after {place(start)} cannot be held ({error})"

    def whole(self) -> pa.ChunkedArray:
        """Return the batches as one column."""
        target = TYPES[frozenset(self.first)]
        return pa.chunked_array([chunk.cast(target, safe=False) for chunk in self.chunks], target)


def _kind(own: type) -> str:
    return KINDS.get(own, f"a {own.__name__}")


def _odd_list(values: list[Any]) -> int | None:
    """Return the place of the first list that holds anything but strings and None."""
    for place, value in enumerate(values):
        if value is not None and not all(v is None or type(v) is str for v in value):
            return place
    return None


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:20]) + (", ..." if len(known) > 20 else "") or "none"


def _kept(path: Path, rows: int) -> pa.Table | None:
    """Return the columns in a file, unless there is none or it is damaged."""
    try:
        if not is_sealed(path):
            log.info(f"{path} is damaged: the attributes are read again.")
            return None
        with pa.memory_map(str(path)) as source:
            content = source.read_buffer(source.size() - SEAL)
        table = pa.ipc.open_file(content).read_all()
    except (OSError, pa.ArrowException):
        return None
    return table if table.num_rows == rows else None


def _keep(table: pa.Table, path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_atomically(path, sealed(sink.getvalue().to_pybytes()))


Found: TypeAlias = tuple[pa.ChunkedArray, pa.Table, Place]
"""The ids in a file, its other columns, and where its rows stand."""


def _jsonl(path: Path) -> Found:
    place = partial(place_of_record, path)
    parse = partial(fields_from, but=())
    ids, table = table_of(read_records(path, parse), None, place)
    faults = json.loads(table.schema.metadata[LEFT_OUT])
    if faults:
        raise DataError(f"a field cannot be a column. {faults[0]}. Make it of one type.")
    return ids, table.replace_schema_metadata(None), place


def _parquet(path: Path) -> Found:
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
            f"{path}: column {name} holds no ids, which are strings ({error})."
        ) from error
    return ids, table.drop_columns([name]), lambda row: f"{path}, row {row + 1}"


def _separated(path: Path, *, delimiter: str) -> Found:
    import pyarrow.csv as arrow_csv

    names = next((names for _, names in _rows(path, delimiter)), [])
    name = _id_column(path, names)
    twice = {own for own in names if names.count(own) > 1}
    if twice:
        raise DataError(f"{path}:1: two columns have the name {sorted(twice)[0]!r}. Rename one.")
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
    for place, column in enumerate(table.columns):
        if pa.types.is_time(column.type):
            text = column.cast(pa.string())
            table = table.set_column(place, table.column_names[place], text)

    def line(row: int) -> str:
        return f"{path}:{next(islice(_rows(path, delimiter), row + 1, None))[0]}"

    for column_name in table.column_names:
        if column_name != name and pa.types.is_string(table[column_name].type):
            _log_almost_numbers(column_name, table[column_name], line)

    return table[name], table.drop_columns([name]), line


def _log_almost_numbers(name: str, column: pa.ChunkedArray, line: Place) -> None:
    """Log that a column of numbers has become one of strings, for the few values that are none."""
    numbers = pc.match_substring_regex(column, NUMBER)
    count, known = pc.sum(numbers).as_py() or 0, len(column) - column.null_count
    if known / 2 < count < known:
        row = pc.index(numbers, False).as_py()
        verb = "is no number" if known - count == 1 else "are no numbers"
        log.info(
            f"attribute {name} holds strings: {known - count:,} of {known:,} values {verb}, first "
            f"{column[row].as_py()!r} ({line(row)}). Leave such cells empty to compare numbers."
        )


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with the numbers of the lines that they begin in."""
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


READERS: dict[str, Callable[[Path], Found]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".parquet": _parquet,
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
}
