"""What is known of each vector beside its numbers: typed columns, and which rows fit a condition.

A column is of one of six types, whatever Arrow type it came as:

| type | held as | compared with |
|---|---|---|
| truth | bool | true, false |
| whole number | int64 | numbers |
| number | float64; NaN is missing | numbers |
| string | string | strings, by code points |
| time | timestamp in microseconds, UTC | strings in ISO 8601; a date is its midnight |
| list of strings | list<string> | `tags = "x"`: it contains x; `tags in (...)`: one of them |
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.errors import ConfigError, DataError
from retrodistill.filters.expressions import (
    INTEGERS,
    Among,
    And,
    Compare,
    Expression,
    Missing,
    Not,
    Or,
    Order,
    Value,
    quoted,
    written,
)
from retrodistill.manifest import write_atomically

TIME = pa.timestamp("us", "UTC")
STRINGS = pa.list_(pa.string())
KINDS = {
    pa.bool_(): "true or false",
    pa.int64(): "whole numbers",
    pa.float64(): "numbers",
    pa.string(): "strings",
    TIME: "times",
    STRINGS: "lists of strings",
    pa.null(): "nothing",
}
TAKES = {
    pa.bool_(): "truth",
    pa.int64(): "number",
    pa.float64(): "number",
    pa.string(): "string",
    TIME: "string",
    STRINGS: "string",
}
"""The kind of values that each type is compared with."""

ORDERS = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}


class Attributes:
    """Typed columns, one row a vector; see the module for the types. It never changes.

    A missing value is None, and NaN among numbers. It fits no comparison, nor the negation of one,
    as in SQL: of `year > 2020` and `not year > 2020`, neither holds where the year is missing, and
    `year > 2020 or year is missing` asks for both. An empty list is no missing value: it contains
    nothing.

    Make one with `from_table` or `from_columns`, which check the columns.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        """The columns, of the types above."""

    @classmethod
    def from_table(cls, table: pa.Table) -> "Attributes":
        """Return the attributes in an Arrow table, each column in one of the types above.

        Raises:
            DataError: a column of another type, or two of one name.

        """
        names = table.column_names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:
            raise DataError(
                f"attributes need distinct names that are not empty, but {(twice or [''])[0]!r} "
                "is not. Rename a column."
            )
        columns = [_typed(name, table[name]) for name in names]
        return cls(pa.table(dict(zip(names, columns, strict=True))) if names else table)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> "Attributes":
        """Return the attributes in columns of equal length, with None where a value is missing.

        Raises:
            DataError: values of several types in one column, or columns of several lengths.

        """
        arrays = {}
        for name, values in columns.items():
            try:
                arrays[name] = pa.array(values)
            except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
                raise DataError(
                    f"column {name!r} cannot be held: {error}. Values of a column must be of one "
                    "type: convert them."
                ) from error
        lengths = {name: len(values) for name, values in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns must be equally long, but their lengths are {lengths}.")
        return cls.from_table(pa.table(arrays))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        columns = (f"{field.name}: {KINDS[field.type]}" for field in self.table.schema)
        return f"Attributes({len(self)} rows; {', '.join(columns)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attributes) and bool(self.table.equals(other.table))

    __hash__ = None  # type: ignore[assignment]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.table.column_names)

    def append(self, other: "Attributes") -> "Attributes":
        """Return these rows, followed by those of another.

        A column that the other lacks is missing in its rows. Whole numbers fit a column of
        numbers, and a column without any value fits every type.

        Raises:
            DataError: the other has a column that is unknown here (a misspelt name would hide its
                values otherwise), or one of another type.

        """
        for name in other.names:
            if name not in self.names:
                raise DataError(
                    f"the new rows have a column {name!r}, but {self._unknown(name)} Rename it, or "
                    "give the first rows this column too, with None where nothing is known."
                )
        columns = {}
        for name in self.names:
            mine, empty = self.table[name], pa.chunked_array([pa.nulls(len(other))])
            theirs = other.table[name] if name in other.names else empty
            types = {mine.type, theirs.type} - {pa.null()}
            if types == {pa.int64(), pa.float64()} and mine.type == pa.float64():
                types = {pa.float64()}
            if len(types) > 1:
                raise DataError(
                    f"column {name!r} holds {KINDS[mine.type]}{_examples(mine)}, but in the new "
                    f"rows {KINDS[theirs.type]}{_examples(theirs)}. Convert them."
                )
            target = types.pop() if types else pa.null()
            chunks = [*mine.cast(target).chunks, *_cast(theirs, target).chunks]
            columns[name] = pa.chunked_array(chunks, type=target)
        return Attributes(pa.table(columns)) if columns else self

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> "Attributes":
        """Return some rows, in the order asked for.

        Raises:
            IndexError: there is no such row.

        """
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {len(self)}")
        return Attributes(self.table.take(pa.array(wanted)))

    def matching(self, expression: Expression) -> NDArray[np.bool_]:
        """Return for each row whether it fits a condition.

        Raises:
            ConfigError: the condition names a column that is not there, compares one with a value
                of another type, or orders what has no order.

        """
        fits = self._evaluated(expression)
        return np.asarray(pc.fill_null(fits, False).to_numpy(), dtype=np.bool_)

    def estimate(self, expression: Expression) -> float:
        """Return the share of rows that fit a condition; of no rows, 0. It counts them."""
        return float(self.matching(expression).mean()) if len(self) else 0.0

    def write(self, path: Path) -> None:
        """Write one Arrow file, whole or not at all."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        write_atomically(Path(path), sink.getvalue())

    @classmethod
    def read(cls, path: Path) -> "Attributes":
        """Open what `write` wrote; the columns stay on disk until they are used.

        Raises:
            DataError: there is no such file, or it is damaged.

        """
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as opened:
                table = opened.read_all()
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path} cannot be read as attributes ({error}). Write them again."
            ) from error
        return cls.from_table(table)

    def _evaluated(self, expression: Expression) -> pa.ChunkedArray:
        """Return true, false or null for each row."""
        match expression:
            case And(parts):
                return _folded(pc.and_kleene, [self._evaluated(part) for part in parts])
            case Or(parts):
                return _folded(pc.or_kleene, [self._evaluated(part) for part in parts])
            case Not(part):
                return pc.invert(self._evaluated(part))
            case Missing(name):
                return pc.is_null(self._column(name))
            case Among(name, values):
                column = self._fitting(expression, name, expression.kind, values[0])
                return _among(name, column, values)
            case Compare(name, operator, value):
                column = self._fitting(expression, name, expression.kind, value)
                return _compared(name, column, operator, value)
        raise AssertionError(expression)

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self.names:
            raise ConfigError(f"the filter asks for {quoted(name)}, but {self._unknown(name)}")
        return self.table[name]

    def _fitting(
        self, expression: Expression, name: str, kind: str, value: Value
    ) -> pa.ChunkedArray:
        """Return a column that can be compared with values of a kind."""
        column = self._column(name)
        if column.type != pa.null() and TAKES[column.type] != kind:
            advice = {
                "string": f'Write a string in quotes: "{value}".',
                "number": "Write a number without quotes.",
                "truth": "Write true or false.",
            }[TAKES[column.type]]
            raise ConfigError(
                f"column {quoted(name)} holds {KINDS[column.type]}{_examples(column)}, which "
                f"cannot be compared with {written(value)}. {advice}"
            )
        if isinstance(expression, Compare) and column.type in (STRINGS, pa.bool_()):
            raise ConfigError(
                f"column {quoted(name)} holds {KINDS[column.type]}, which have no order: "
                f"{expression}. Use =, != or in."
            )
        return column

    def _unknown(self, name: str) -> str:
        near = get_close_matches(name, self.names, n=1)
        hint = f" Did you mean {quoted(near[0])}?" if near else ""
        known = ", ".join(map(quoted, self.names)) or "none"
        return f"there is no such column.{hint} Known: {known}."


def _typed(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as one of the types that are held."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _typed(name, _cast(column, kind.value_type))
    if kind == STRINGS or _is_list(kind):
        return _strings(name, column)
    if pa.types.is_integer(kind):
        target = pa.int64()
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        target = pa.float64()
    elif pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        target = pa.string()
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        target = TIME
    elif kind in KINDS:
        target = kind
    else:
        raise DataError(
            f"column {name!r} is of type {kind}, but attributes are truth values, numbers, "
            "strings, times or lists of strings. Convert it or leave it out."
        )
    try:
        column = _cast(column, target)
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} of type {kind} cannot be held: {error}.") from error
    if target == pa.float64() and pc.any(pc.is_nan(column)).as_py():
        column = pc.if_else(pc.is_nan(column), None, column)
    return column


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _strings(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return lists of strings without missing elements."""
    inner = column.type.value_type
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or inner == pa.null()):
        raise DataError(
            f"column {name!r} holds lists of {inner}, but only lists of strings can be held. "
            "Convert the elements to strings, or leave the column out."
        )
    column = column.cast(STRINGS)
    if not any(chunk.flatten().null_count for chunk in column.chunks):
        return column
    lists = [
        None if own is None else [element for element in own if element is not None]
        for own in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(lists, STRINGS)])


def _cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Return a column in another type; times lose what is finer than a microsecond."""
    return column if column.type == target else column.cast(target, safe=target != TIME)


def _folded(function: Any, parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    first, *rest = parts
    for part in rest:
        first = function(first, part)
    return first


def _among(name: str, column: pa.ChunkedArray, values: tuple[Value, ...]) -> pa.ChunkedArray:
    if column.type == STRINGS:
        wanted = pa.array(values, pa.string())
        chunks = [_containing(chunk, wanted) for chunk in column.chunks]
        return pa.chunked_array(chunks, type=pa.bool_())
    if column.type == pa.null():
        return _constant(column, False)
    if column.type == TIME:
        wanted = pa.array([_time(name, column, value) for value in values], TIME)
    elif column.type == pa.int64():
        wanted = pa.array([value for value in values if isinstance(value, int)], pa.int64())
    elif column.type == pa.float64():
        wanted = pa.array([float(value) for value in values], pa.float64())
    else:
        wanted = pa.array(values, column.type)
    if len(wanted) == 1:
        return pc.equal(column, wanted[0])
    return pc.if_else(pc.is_valid(column), pc.is_in(column, value_set=wanted), None)


def _containing(lists: pa.ListArray, wanted: pa.Array) -> pa.Array:
    """Return for each list whether one of its elements is wanted."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    parents = np.repeat(np.arange(len(lists)), lengths)
    fits = np.zeros(len(lists), np.bool_)
    hits = pc.is_in(lists.flatten(), value_set=wanted).to_numpy(zero_copy_only=False)
    fits[parents[hits]] = True
    return pa.array(fits, mask=lists.is_null().to_numpy(zero_copy_only=False))


def _compared(
    name: str, column: pa.ChunkedArray, operator: Order, value: str | int | float
) -> pa.ChunkedArray:
    if column.type == pa.null():
        return _constant(column, False)
    if column.type == TIME:
        return ORDERS[operator](column, pa.scalar(_time(name, column, value), TIME))
    if column.type == pa.int64():
        assert not isinstance(value, str)
        bound = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
        if bound not in INTEGERS:
            return _constant(column, (bound > 0) == (operator in ("<", "<=")))
        value = bound
    return ORDERS[operator](column, pa.scalar(value, column.type))


def _constant(column: pa.ChunkedArray, value: bool) -> pa.ChunkedArray:
    """Return a truth value wherever the column has a value."""
    return pc.if_else(pc.is_valid(column), value, pa.scalar(None, pa.bool_()))


def _time(name: str, column: pa.ChunkedArray, value: Value) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ConfigError(
            f"column {quoted(name)} holds times{_examples(column)}, but {written(value)} is none. "
            'Write "2024-05-31" or "2024-05-31T12:00:00".'
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _examples(column: pa.ChunkedArray) -> str:
    """Return two values of a column, for a message."""
    found = pc.unique(column.slice(0, 1000).drop_null()) if column.type != STRINGS else column
    values = found.slice(0, 2).to_pylist()
    shown = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return f" (such as {', '.join(str(value)[:40] for value in shown)})" if shown else ""
