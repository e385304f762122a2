"""Translate conditions into Milvus's boolean filter language.

Where a value is missing, Milvus excludes the document from `==` and other comparisons; how it
treats their negations depends on its version, so `x != 1` is written with `x is not null`.
"""

import re
from collections.abc import Collection

from retrodistill.base.errors import ConfigError
from retrodistill.data.filters.expressions import (
    Among,
    And,
    Compare,
    Expression,
    Missing,
    Not,
    Or,
    Value,
    quoted,
)

RESERVED = {
    "and",
    "or",
    "not",
    "in",
    "like",
    "is",
    "null",
    "exists",
    "true",
    "false",
    "json_contains",
    "json_contains_all",
    "json_contains_any",
    "array_contains",
    "array_contains_all",
    "array_contains_any",
    "array_length",
    "text_match",
}
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def milvus_filter(expression: Expression, *, lists: Collection[str] = ()) -> str:
    """Return a condition as a Milvus filter; `lists` names the columns that are arrays.

    Times are compared as strings: store them in one format of ISO 8601.

    Raises:
        ConfigError: Milvus does not allow a column's name, or an array is compared with < or >.

    """
    match expression:
        case And(operands):
            return " and ".join(f"({milvus_filter(operand, lists=lists)})" for operand in operands)
        case Or(operands):
            return " or ".join(f"({milvus_filter(operand, lists=lists)})" for operand in operands)
        case Not(Missing(name)):
            return f"{_field(name)} is not null"
        case Not(Among(name) as operand):
            return f"{_field(name)} is not null and {_among(operand, lists, negated=True)}"
        case Missing(name):
            return f"{_field(name)} is null"
        case Among():
            return _among(expression, lists, negated=False)
        case Compare(name, operator, value) if name not in lists:
            return f"{_field(name)} {operator} {_value(value)}"
    raise ConfigError(f"{expression}: lists have no order. Use =, != or in.")


def _among(leaf: Among, lists: Collection[str], *, negated: bool) -> str:
    field, values = _field(leaf.name), ", ".join(map(_value, leaf.values))
    single = len(leaf.values) == 1
    if leaf.name in lists:
        call = f"array_contains({field}, {values})"
        call = call if single else f"array_contains_any({field}, [{values}])"
        return f"not {call}" if negated else call
    if single:
        return f"{field} {'!=' if negated else '=='} {values}"
    return f"{field} {'not in' if negated else 'in'} [{values}]"


def _field(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or name.lower() in RESERVED:
        raise ConfigError(
            f"Milvus does not allow the field name {quoted(name)}: use letters, digits and _ only, "
            "and no reserved word. Rename the column."
        )
    return name


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(ESCAPES.get(character, character) for character in value) + '"'
    return repr(value)
