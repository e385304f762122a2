"""Conditions in the boolean language of Milvus.

Where a value is missing, Milvus leaves the document out of `==` and the like; what it does with
their negations depends on the version, so `x != 1` is written with `x is not null`.
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
    """Return a condition in Milvus's language; `lists` names the columns that are arrays.

    Times are compared as the strings they are given as: store them as ISO 8601 of one form.

    Raises:
        ConfigError: a column has a name that Milvus cannot have, or an array is ordered.

    """
    match expression:
        case And(parts):
            return " and ".join(f"({milvus_filter(part, lists=lists)})" for part in parts)
        case Or(parts):
            return " or ".join(f"({milvus_filter(part, lists=lists)})" for part in parts)
        case Not(Missing(name)):
            return f"{_field(name)} is not null"
        case Not(Among(name) as part):
            return f"{_field(name)} is not null and {_among(part, lists, negated=True)}"
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
            f"Milvus has no field of the name {quoted(name)}: letters, digits and _ only, and no "
            "word of its language. Rename the column."
        )
    return name


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(ESCAPES.get(character, character) for character in value) + '"'
    return repr(value)
