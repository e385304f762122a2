"""Types of attribute columns: any Arrow column as one of six types.

| type | stored as | compared with |
|---|---|---|
| truth | bool | true, false |
| whole number | int64 | numbers |
| number | float64; NaN is missing | numbers |
| string | string | strings, by code points |
| time | timestamp in microseconds, UTC | strings in ISO 8601; a date is its midnight |
| list of strings | list<string> | `tags = "x"`: it contains x; `tags in (...)`: one of them |
"""

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches

import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.errors import DataError
from retrodistill.data.filters.expressions import quoted

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
"""Type -> its name in messages."""


def typed(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in one of the six types.

    Raises:
        DataError: the column has another type, or a whole number is too large.

    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return typed(name, cast(column, kind.value_type))
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
            "strings, times or lists of strings. Convert it, or drop the column."
        )
    try:
        column = cast(column, target)
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} of type {kind} cannot be stored: {error}.") from error
    if target == pa.float64() and pc.any(pc.is_nan(column)).as_py():
        column = pc.if_else(pc.is_nan(column), None, column)
    return column


def cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Return a column in another type; times and numbers are rounded where it is narrower."""
    safe = target not in (TIME, pa.float64())
    return column if column.type == target else column.cast(target, safe=safe)


def examples(column: pa.ChunkedArray) -> str:
    """Return two values of a column, for a message."""
    present = column.slice(0, 1000).drop_null()
    values = (present if column.type == STRINGS else pc.unique(present)).slice(0, 2).to_pylist()
    shown = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return f" (such as {', '.join(str(value)[:40] for value in shown)})" if shown else ""


def unknown(name: str, names: Sequence[str]) -> str:
    """Return a sentence for messages about an unknown column: the nearest name and all names."""
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {quoted(near[0])}?" if near else ""
    columns = ", ".join(map(quoted, names)) or "none"
    return f"there is no such column.{hint} Known: {columns}."


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _strings(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return lists of strings without missing elements."""
    inner = column.type.value_type
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or inner == pa.null()):
        raise DataError(
            f"column {name!r} holds lists of {inner}, but only lists of strings are supported. "
            "Convert the elements to strings, or drop the column."
        )
    column = column.cast(STRINGS)
    if not any(chunk.flatten().null_count for chunk in column.chunks):
        return column
    lists = [
        None if elements is None else [element for element in elements if element is not None]
        for elements in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(lists, STRINGS)])
