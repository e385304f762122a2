"""Filter conditions as frozen, hashable expressions in canonical form.

Three leaves (`Among`, `Compare`, `Missing`) and three connectives (`And`, `Or`, `Not`).
Connectives are made by `all_of`, `any_of`, `&`, `|` and `~`, which keep the form canonical:

- a negation precedes `Among` or `Missing` only: De Morgan's laws push it inwards, and it turns
  `<` into `>=`;
- `And` contains no `And`, `Or` no `Or`, and the operands are sorted and distinct;
- `x = 1 or x = 2` is `x in (1, 2)`, and `x != 1 and x != 2` is `x not in (1, 2)`;
- `between` is two comparisons, and 3.0 is 3.

All of this holds in SQL's three-valued logic too, where a comparison with a missing value is
neither true nor false. `x > 3 and x > 2` is not simplified to `x > 3`.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Literal, TypeAlias

from retrodistill.base.errors import ConfigError

Value: TypeAlias = str | int | float | bool
Kind: TypeAlias = Literal["string", "number", "truth"]
Order: TypeAlias = Literal["<", "<=", ">", ">="]

OPPOSITE: dict[Order, Order] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
KEYWORDS = ("and", "or", "not", "in", "between", "is", "missing", "true", "false")
PLAIN_NAME = r"[^\W\d][\w.]*"
INTEGERS = range(-(2**63), 2**63)
"""Range of whole numbers; a larger one becomes a float."""

_plain = re.compile(PLAIN_NAME)
_keyword = re.compile("|".join(KEYWORDS), re.IGNORECASE)


class Expression:
    """A condition. Its `str` can be parsed back; equal conditions compare and hash equal."""

    __slots__ = ()

    def __and__(self, other: "Expression") -> "Expression":
        return all_of([self, other])

    def __or__(self, other: "Expression") -> "Expression":
        return any_of([self, other])

    def __invert__(self) -> "Expression":
        return _negated(self)


@dataclass(frozen=True)
class Among(Expression):
    """The value, or an element of a list value, is among these: `x in (1, 2)`, or `x = 1`.

    Raises:
        ConfigError: no value, values of different kinds, or a value of an unsupported type.

    """

    name: str
    values: tuple[Value, ...]
    kind: Kind = field(init=False)
    """Kind of the values; distinguishes 1 from true, which are equal in Python."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        values = [_value(self.name, value) for value in self.values]
        kinds = sorted({_kind(value) for value in values})
        if len(kinds) != 1:
            mixture = f"a {' and a '.join(kinds)}" if kinds else "none"
            raise ConfigError(
                f"{quoted(self.name)} must be compared with values of one kind, but got "
                f'{mixture}. Example: lang in ("de", "en").'
            )
        object.__setattr__(self, "values", tuple(sorted(set(values))))
        object.__setattr__(self, "kind", kinds[0])

    def __str__(self) -> str:
        return self.written("=", "in")

    def written(self, one: str, many: str) -> str:
        """Return the condition as text, with the operator for one value or for several."""
        values = ", ".join(map(written, self.values))
        if len(self.values) == 1:
            return f"{quoted(self.name)} {one} {values}"
        return f"{quoted(self.name)} {many} ({values})"


@dataclass(frozen=True)
class Compare(Expression):
    """The value is below or above a number or a string: `x < 3`.

    Raises:
        ConfigError: an unknown operator, or true or false as the value.

    """

    name: str
    operator: Order
    value: str | int | float

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.operator not in OPPOSITE:
            raise ConfigError(f"unknown operator {self.operator!r}. Known: {', '.join(OPPOSITE)}.")
        value = _value(self.name, self.value)
        if isinstance(value, bool):
            raise ConfigError(
                f"true and false have no order: {quoted(self.name)} {self.operator} "
                f"{written(value)}. Use = or !=."
            )
        object.__setattr__(self, "value", value)

    @property
    def kind(self) -> Kind:
        """Whether strings or numbers are compared."""
        return _kind(self.value)

    def __str__(self) -> str:
        return f"{quoted(self.name)} {self.operator} {written(self.value)}"


@dataclass(frozen=True)
class Missing(Expression):
    """The value is missing: `x is missing`."""

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)

    def __str__(self) -> str:
        return f"{quoted(self.name)} is missing"


@dataclass(frozen=True)
class Not(Expression):
    """The negation of a leaf. Made by `~`."""

    operand: Among | Missing

    def __post_init__(self) -> None:
        assert isinstance(self.operand, Among | Missing), "write ~expression"

    def __str__(self) -> str:
        if isinstance(self.operand, Missing):
            return f"{quoted(self.operand.name)} is not missing"
        return self.operand.written("!=", "not in")


@dataclass(frozen=True)
class And(Expression):
    """All operands hold. Made by `all_of` or `&`."""

    operands: tuple[Expression, ...]

    def __str__(self) -> str:
        return " and ".join(
            f"({operand})" if isinstance(operand, Or) else str(operand) for operand in self.operands
        )


@dataclass(frozen=True)
class Or(Expression):
    """At least one operand holds. Made by `any_of` or `|`."""

    operands: tuple[Expression, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.operands))


def all_of(conditions: Iterable[Expression]) -> Expression:
    """Return the condition that all of these hold.

    Raises:
        ConfigError: no condition is given.

    """
    negated: list[Among] = []
    unmerged: list[Expression] = []
    for condition in conditions:
        for operand in condition.operands if isinstance(condition, And) else [condition]:
            if isinstance(operand, Not) and isinstance(operand.operand, Among):
                negated.append(operand.operand)
            else:
                unmerged.append(operand)
    return _joined([*unmerged, *map(Not, _merged(negated))], And)


def any_of(conditions: Iterable[Expression]) -> Expression:
    """Return the condition that at least one of these holds.

    Raises:
        ConfigError: no condition is given.

    """
    among: list[Among] = []
    unmerged: list[Expression] = []
    for condition in conditions:
        for operand in condition.operands if isinstance(condition, Or) else [condition]:
            if isinstance(operand, Among):
                among.append(operand)
            else:
                unmerged.append(operand)
    return _joined([*unmerged, *_merged(among)], Or)


def names_of(expression: Expression) -> set[str]:
    """Return the names of the columns that a condition uses."""
    match expression:
        case And(operands) | Or(operands):
            return {name for operand in operands for name in names_of(operand)}
        case Not(operand):
            return {operand.name}
        case Among() | Compare() | Missing():
            return {expression.name}
    raise AssertionError(expression)


def quoted(name: str) -> str:
    """Return a column's name as conditions write it, in backticks where needed."""
    if _plain.fullmatch(name) and not _keyword.fullmatch(name):
        return name
    return "`" + name.replace("`", "``") + "`"


def written(value: Value) -> str:
    """Return a value as conditions write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _joined(
    operands: list[Expression], connective: Callable[[tuple[Expression, ...]], Expression]
) -> Expression:
    distinct = sorted(set(operands), key=str)
    if not distinct:
        raise ConfigError("a condition needs at least one operand. Omit the filter instead.")
    return distinct[0] if len(distinct) == 1 else connective(tuple(distinct))


def _merged(leaves: list[Among]) -> list[Among]:
    """Return one leaf for each column and kind of value, with the values of all leaves."""
    values: dict[tuple[str, Kind], list[Value]] = {}
    for leaf in leaves:
        values.setdefault((leaf.name, leaf.kind), []).extend(leaf.values)
    return [Among(name, tuple(merged)) for (name, _), merged in values.items()]


def _negated(expression: Expression) -> Expression:
    match expression:
        case And(operands):
            return any_of(map(_negated, operands))
        case Or(operands):
            return all_of(map(_negated, operands))
        case Not(operand):
            return operand
        case Compare(name, operator, value):
            return Compare(name, OPPOSITE[operator], value)
        case Among() | Missing():
            return Not(expression)
    raise AssertionError(expression)


def _check_name(name: str) -> None:
    if not name:
        raise ConfigError("empty column name. Name a column of the attributes.")


def _kind(value: Value) -> Kind:
    if isinstance(value, bool):
        return "truth"
    return "string" if isinstance(value, str) else "number"


def _value(name: str, value: object) -> Value:
    """Return a value in canonical form: whole numbers as int, other numbers as float."""
    if isinstance(value, str | bool):
        return value
    if isinstance(value, Integral) and int(value) in INTEGERS:
        return int(value)
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(
            f"{quoted(name)} cannot be compared with {str(value)[:60]}: write a string in quotes, "
            "a finite number, true or false."
        )
    whole = number.is_integer() and int(number) in INTEGERS
    return int(number) if whole else number
