"""Attributes as Milvus has them: fields of a schema, values of rows, conditions on them.

| attribute | field | value |
|---|---|---|
| truth, whole number, number, string | BOOL, INT64, DOUBLE, VARCHAR | as it is |
| time | INT64 | microseconds since 1970, UTC |
| list of strings | ARRAY of VARCHAR | as it is |
| nothing known in any document | VARCHAR | null |

All are nullable, which a Milvus server can from version 2.5 on.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.errors import ConfigError, DataError

if TYPE_CHECKING:
    from retrodistill.data.filters import Attributes, Compare, Expression

ID, VECTOR = "id", "vector"
"""Fields that every collection has."""
MAX_BYTES = 65_535
"""Longest string of a field, in bytes of UTF-8."""
MAX_ELEMENTS = 4096
"""Longest list of a field."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def schema_of(client: Any, dimension: int, types: pa.Schema) -> Any:
    """Return the schema of a collection of vectors with attributes of these types.

    Raises:
        ConfigError: an attribute has a name that Milvus cannot have.

    """
    from pymilvus import DataType

    from retrodistill.data.filters import Missing, milvus_filter
    from retrodistill.data.filters.columns import STRINGS, TIME

    fields = {
        pa.bool_(): DataType.BOOL,
        pa.int64(): DataType.INT64,
        TIME: DataType.INT64,
        pa.float64(): DataType.DOUBLE,
        pa.string(): DataType.VARCHAR,
        pa.null(): DataType.VARCHAR,
        STRINGS: DataType.ARRAY,
    }
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=MAX_BYTES)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
    for column in types:
        if column.name in (ID, VECTOR):
            raise ConfigError(
                f"no attribute can be called {column.name!r} in Milvus: the documents' own field "
                "is. Rename the column."
            )
        milvus_filter(Missing(column.name))  # refuses names that Milvus cannot have
        settings: dict[str, Any] = {"nullable": True}
        if column.type in (pa.string(), pa.null(), STRINGS):
            settings["max_length"] = MAX_BYTES
        if column.type == STRINGS:
            settings |= {"element_type": DataType.VARCHAR, "max_capacity": MAX_ELEMENTS}
        schema.add_field(column.name, fields[column.type], **settings)
    return schema


def refuse_long(ids: Sequence[str], table: pa.Table) -> None:
    """Raise DataError at an id, a string or a list that is longer than a field can hold."""
    from retrodistill.data.filters.columns import STRINGS

    columns = {ID: pa.chunked_array([pa.array(ids, pa.string())])}
    for name in table.column_names:
        if table[name].type == pa.string():
            columns[name] = table[name]
        elif table[name].type == STRINGS:
            lengths = pc.list_value_length(table[name])
            inner = [max(map(_bytes, own or []), default=0) for own in table[name].to_pylist()]
            _refuse(ids, name, lengths, MAX_ELEMENTS, "strings")
            _refuse(ids, name, pa.array(inner), MAX_BYTES, "bytes")
    for name, column in columns.items():
        _refuse(ids, name, pc.binary_length(column), MAX_BYTES, "bytes")


def _bytes(text: str) -> int:
    return len(text.encode())


def _refuse(ids: Sequence[str], name: str, lengths: Any, limit: int, unit: str) -> None:
    long = pc.indices_nonzero(pc.fill_null(pc.greater(lengths, limit), False))
    if len(long):
        row = long[0].as_py()
        raise DataError(
            f"{name!r} of document {ids[row][:60]!r} has {lengths[row].as_py():,} {unit}, but "
            f"Milvus holds at most {limit:,}. Shorten it; nothing was added."
        )


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the attributes of each document as values of their fields."""
    from retrodistill.data.filters.columns import TIME

    columns = {
        name: table[name].cast(pa.int64()) if table[name].type == TIME else table[name]
        for name in table.column_names
    }
    rows: list[dict[str, Any]] = pa.table(columns).to_pylist()
    return rows


def condition(expression: "Expression", types: "Attributes") -> str:
    """Return a condition in the language of Milvus, with the meaning that it has elsewhere.

    Raises:
        ConfigError: it names no attribute, or compares one with a value of another type.

    """
    from retrodistill.data.filters import milvus_filter
    from retrodistill.data.filters.columns import STRINGS

    types.matching(expression)  # refuses what does not fit the columns
    schema = types.table.schema
    lists = {column.name for column in schema if column.type == STRINGS}
    return milvus_filter(_on_fields(expression, schema), lists=lists)


def _on_fields(expression: "Expression", schema: pa.Schema) -> "Expression":
    """Return the condition with values of the fields' types."""
    from retrodistill.data.filters import Among, And, Compare, Missing, Not, Or, all_of, any_of

    match expression:
        case And(parts):
            return all_of(_on_fields(part, schema) for part in parts)
        case Or(parts):
            return any_of(_on_fields(part, schema) for part in parts)
        case Missing() | Not(Missing()):
            return expression
        case Not(Among(name) as among):
            values = _of_type(among.values, schema.field(name).type)
            known = ~Missing(name)
            if schema.field(name).type == pa.null():
                return known  # no document is
            return ~Among(name, values) if values else known
        case Among(name, values):
            values = _of_type(values, schema.field(name).type)
            return Among(name, values) if values else Missing(name) & ~Missing(name)
        case Compare():
            return _bound(expression, schema.field(expression.name).type)
    raise AssertionError(expression)


def _of_type(values: Sequence[Any], kind: pa.DataType) -> tuple[Any, ...]:
    """Return those values that a field of a type can have."""
    from retrodistill.data.filters.columns import TIME

    if kind == TIME:
        return tuple(_microseconds(value) for value in values)
    if kind == pa.null():
        return ()
    return tuple(value for value in values if kind != pa.int64() or isinstance(value, int))


def _bound(leaf: "Compare", kind: pa.DataType) -> "Expression":
    """Return a comparison with a bound that a field of a type can have."""
    from retrodistill.data.filters import Compare, Missing
    from retrodistill.data.filters.columns import TIME
    from retrodistill.data.filters.expressions import INTEGERS

    known, value = ~Missing(leaf.name), leaf.value
    if kind == pa.null():
        return known
    if kind == TIME:
        value = _microseconds(value)
    elif kind == pa.int64():
        assert not isinstance(value, str)
        value = math.ceil(value) if leaf.operator in ("<", ">=") else math.floor(value)
        if value not in INTEGERS:
            below = (value > 0) == (leaf.operator in ("<", "<="))
            return known if below else known & Missing(leaf.name)
    return Compare(leaf.name, leaf.operator, value)


def _microseconds(value: Any) -> int:
    moment = datetime.fromisoformat(str(value))
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
