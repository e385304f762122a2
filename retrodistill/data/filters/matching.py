"""Evaluate a condition on a table of attributes, in SQL's three-valued logic."""

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

COMPARED_WITH = {
    pa.bool_(): "truth",
    pa.int64(): "number",
    pa.float64(): "number",
    pa.string(): "string",
    TIME: "string",
    STRINGS: "string",
}
"""Type of a column -> kind of the values that it is compared with."""

ROUNDED: dict[tuple[bool, str], Order] = {
    (True, ">"): ">=",
    (True, "<"): "<",
    (False, ">"): ">",
    (False, "<"): "<=",
}
"""Whether a bound was rounded up, and the direction -> the operator for the rounded bound."""

ORDERS = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}


def evaluated(expression: Expression, table: pa.Table) -> pa.ChunkedArray:
    """Return true, false or null for each row of a table with the types of `columns`.

    Raises:
        ConfigError: the condition names an unknown column, compares a column with a value of
            another type, or uses < or > on a type without order.

    """
    match expression:
        case And(operands):
            return _folded(pc.and_kleene, [evaluated(operand, table) for operand in operands])
        case Or(operands):
            return _folded(pc.or_kleene, [evaluated(operand, table) for operand in operands])
        case Not(operand):
            return pc.invert(evaluated(operand, table))
        case Missing(name):
            return pc.is_null(_column(table, name))
        case Among(name, values):
            return _among(name, _checked_column(expression, table, values[0]), values)
        case Compare(name, operator, value):
            return _compared(name, _checked_column(expression, table, value), operator, value)
    raise AssertionError(expression)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise ConfigError(
            f"the filter uses column {quoted(name)}, but {unknown(name, table.column_names)}"
        )
    return table[name]


def _checked_column(leaf: Among | Compare, table: pa.Table, value: Value) -> pa.ChunkedArray:
    """Return the column of a comparison, after checking its type against the value."""
    name, column = leaf.name, _column(table, leaf.name)
    if column.type != pa.null() and COMPARED_WITH[column.type] != leaf.kind:
        advice = {
            "string": f'Write a string in quotes: "{written(value)}".',
            "number": "Write a number without quotes.",
            "truth": "Write true or false.",
        }[COMPARED_WITH[column.type]]
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


def _folded(function: Any, columns: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    result, *remaining = columns
    for column in remaining:
        result = function(result, column)
    return result


def _among(name: str, column: pa.ChunkedArray, values: tuple[Value, ...]) -> pa.ChunkedArray:
    """Return which rows equal one of the values, or contain one, for lists of strings."""
    if column.type == STRINGS:
        requested = pa.array(values, pa.string())
        chunks = [_containing(chunk, requested) for chunk in column.chunks]
        return pa.chunked_array(chunks, type=pa.bool_())
    if column.type == pa.null():
        return _constant(column, False)
    # Convert the values to the column's type; those that no row can equal are dropped.
    if column.type == TIME:
        requested = pa.array([_time(name, column, value) for value in values], TIME)
    elif column.type == pa.int64():
        requested = pa.array([value for value in values if isinstance(value, int)], pa.int64())
    elif column.type == pa.float64():
        requested = pa.array(
            [float(value) for value in values if float(value) == value], pa.float64()
        )
    else:
        requested = pa.array(values, column.type)
    # Compare, keeping null where the column is null.
    if len(requested) == 1:
        return pc.equal(column, requested[0])
    return pc.if_else(pc.is_valid(column), pc.is_in(column, value_set=requested), None)


def _containing(lists: pa.ListArray, requested: pa.Array) -> pa.Array:
    """Return for each list whether it contains one of the requested strings."""
    # Number of the list that each element of the flattened column belongs to.
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    parents = np.repeat(np.arange(len(lists)), lengths)
    # A list matches where any of its elements does; null lists stay null.
    matches = np.zeros(len(lists), np.bool_)
    hits = pc.is_in(lists.flatten(), value_set=requested).to_numpy(zero_copy_only=False)
    matches[parents[hits]] = True
    return pa.array(matches, mask=lists.is_null().to_numpy(zero_copy_only=False))


def _compared(
    name: str, column: pa.ChunkedArray, operator: Order, value: str | int | float
) -> pa.ChunkedArray:
    """Return which rows are below or above a value, exactly, whatever the types of both sides."""
    if column.type == pa.null():
        return _constant(column, False)
    if column.type == TIME:
        return ORDERS[operator](column, pa.scalar(_time(name, column, value), TIME))
    if column.type == pa.int64():  # x > 2.5 is x > 2; outside int64 every row is on one side
        assert not isinstance(value, str)
        bound = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
        if bound not in INTEGERS:
            return _constant(column, (bound > 0) == (operator in ("<", "<=")))
        value = bound
    if column.type == pa.float64():  # a large whole number may have no float of its own
        assert not isinstance(value, str)
        nearest = float(value)
        if nearest != value:  # between two floats: no row equals it
            operator = ROUNDED[nearest > value, operator[0]]
        value = nearest
    return ORDERS[operator](column, pa.scalar(value, column.type))


def _constant(column: pa.ChunkedArray, value: bool) -> pa.ChunkedArray:
    """Return one truth value for all rows, and null where the column is null."""
    return pc.if_else(pc.is_valid(column), value, pa.scalar(None, pa.bool_()))


def _time(name: str, column: pa.ChunkedArray, value: Value) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: in UTC, before the year 1 or after 9999
        raise ConfigError(
            f"column {quoted(name)} holds times{examples(column)}, but {written(value)} is not "
            'one. Write "2024-05-31" or "2024-05-31T12:00:00".'
        ) from None
