"""Which rows of a table of attributes fit a condition, in SQL's logic of three values."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.errors import ConfigError
from retrodistill.data.filters.columns import KINDS, STRINGS, TIME, examples, unknown
from retrodistill.data.filters.expressions import (
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

TAKES = {
    pa.bool_(): "truth",
    pa.int64(): "number",
    pa.float64(): "number",
    pa.string(): "string",
    TIME: "string",
    STRINGS: "string",
}
"""The kind of values that each type is compared with."""

ROUNDED: dict[tuple[bool, str], Order] = {
    (True, ">"): ">=",
    (True, "<"): "<",
    (False, ">"): ">",
    (False, "<"): "<=",
}
"""Whether a bound was rounded up, and the side that is asked for -> what is asked of the result."""

ORDERS = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}


def evaluated(expression: Expression, table: pa.Table) -> pa.ChunkedArray:
    """Return true, false or null for each row of columns of the types in `columns`.

    Raises:
        ConfigError: the condition names a column that is not there, compares one with a value of
            another type, or orders what has no order.

    """
    match expression:
        case And(parts):
            return _folded(pc.and_kleene, [evaluated(part, table) for part in parts])
        case Or(parts):
            return _folded(pc.or_kleene, [evaluated(part, table) for part in parts])
        case Not(part):
            return pc.invert(evaluated(part, table))
        case Missing(name):
            return pc.is_null(_column(table, name))
        case Among(name, values):
            return _among(name, _fitting(expression, table, values[0]), values)
        case Compare(name, operator, value):
            return _compared(name, _fitting(expression, table, value), operator, value)
    raise AssertionError(expression)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise ConfigError(
            f"the filter asks for {quoted(name)}, but {unknown(name, table.column_names)}"
        )
    return table[name]


def _fitting(leaf: Among | Compare, table: pa.Table, value: Value) -> pa.ChunkedArray:
    """Return the column of a comparison, which can be compared so with such a value."""
    name, column = leaf.name, _column(table, leaf.name)
    if column.type != pa.null() and TAKES[column.type] != leaf.kind:
        advice = {
            "string": f'Write a string in quotes: "{written(value)}".',
            "number": "Write a number without quotes.",
            "truth": "Write true or false.",
        }[TAKES[column.type]]
        raise ConfigError(
            f"column {quoted(name)} holds {KINDS[column.type]}{examples(column)}, which "
            f"cannot be compared with {written(value)}. {advice}"
        )
    if isinstance(leaf, Compare) and column.type in (STRINGS, pa.bool_()):
        raise ConfigError(
            f"column {quoted(name)} holds {KINDS[column.type]}, which have no order: "
            f"{leaf}. Use =, != or in."
        )
    return column


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
        wanted = pa.array([float(value) for value in values if float(value) == value], pa.float64())
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
    if column.type == pa.float64():
        assert not isinstance(value, str)
        nearest = float(value)
        if nearest != value:  # a whole number between two floats: no row is equal to it
            operator = ROUNDED[nearest > value, operator[0]]
        value = nearest
    return ORDERS[operator](column, pa.scalar(value, column.type))


def _constant(column: pa.ChunkedArray, value: bool) -> pa.ChunkedArray:
    """Return a truth value wherever the column has a value."""
    return pc.if_else(pc.is_valid(column), value, pa.scalar(None, pa.bool_()))


def _time(name: str, column: pa.ChunkedArray, value: Value) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: in UTC, before the year 1 or after 9999
        raise ConfigError(
            f"column {quoted(name)} holds times{examples(column)}, but {written(value)} is none. "
            'Write "2024-05-31" or "2024-05-31T12:00:00".'
        ) from None
