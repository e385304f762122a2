"""Conditions as values: frozen, hashable, and in one form however they were written.

Three leaves (`Among`, `Compare`, `Missing`) and three joints (`And`, `Or`, `Not`). Joints are made
by `all_of`, `any_of`, `&`, `|` and `~`, which keep the form canonical:

- a negation stands before `Among` or `Missing` only: it is pushed inwards by De Morgan's laws, and
  turns `<` into `>=`;
- `And` holds no `And`, `Or` no `Or`, and the parts are sorted and distinct;
- `x = 1 or x = 2` is `x in (1, 2)`, and `x != 1 and x != 2` is `x not in (1, 2)`;
- `between` is two comparisons, and 3.0 is 3.

All of this holds in SQL's three-valued logic too, where a comparison with a missing value is
neither true nor false. That `x > 3 and x > 2` is `x > 3` is not seen.
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
"""What a whole number may be; a larger one is a float."""

_plain = re.compile(PLAIN_NAME)
_keyword = re.compile("|".join(KEYWORDS), re.IGNORECASE)


class Expression:
    """A condition. `str` of it can be parsed back; equal conditions are equal and hash alike."""

    __slots__ = ()

    def __and__(self, other: "Expression") -> "Expression":
        return all_of([self, other])

    def __or__(self, other: "Expression") -> "Expression":
        return any_of([self, other])

    def __invert__(self) -> "Expression":
        return _negated(self)


@dataclass(frozen=True)
class Among(Expression):
    """The value is one of these, all of one kind; of a list, one element is. `x = 1` is this.

    Raises:
        ConfigError: no value, values of several kinds, or one of no kind.

    """

    name: str
    values: tuple[Value, ...]
    kind: Kind = field(init=False)
    """Tells 1 from true, which are equal in Python."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        values = [_value(self.name, value) for value in self.values]
        kinds = sorted({_kind(value) for value in values})
        if len(kinds) != 1:
            found = f"a {' and a '.join(kinds)}" if kinds else "none"
            raise ConfigError(
                f"{quoted(self.name)} can be compared with values of one kind only, but there "
                f'is {found}. Example: lang in ("de", "en").'
            )
        object.__setattr__(self, "values", tuple(sorted(set(values))))
        object.__setattr__(self, "kind", kinds[0])

    def __str__(self) -> str:
        return self.written("=", "in")

    def written(self, one: str, many: str) -> str:
        """Return it as text, with the operator for one value or for many."""
        values = ", ".join(map(written, self.values))
        if len(self.values) == 1:
            return f"{quoted(self.name)} {one} {values}"
        return f"{quoted(self.name)} {many} ({values})"


@dataclass(frozen=True)
class Compare(Expression):
    """The value is below or above another, a number or a string.

    Raises:
        ConfigError: an unknown operator, or a value without order.

    """

    name: str
    operator: Order
    value: str | int | float

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.operator not in OPPOSITE:
            raise ConfigError(
                f"{self.operator!r} does not order values. Known: {', '.join(OPPOSITE)}."
            )
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
    """There is no value."""

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)

    def __str__(self) -> str:
        return f"{quoted(self.name)} is missing"


@dataclass(frozen=True)
class Not(Expression):
    """The contrary of a leaf. Made by `~`."""

    part: Among | Missing

    def __post_init__(self) -> None:
        assert isinstance(self.part, Among | Missing), "write ~part"

    def __str__(self) -> str:
        if isinstance(self.part, Missing):
            return f"{quoted(self.part.name)} is not missing"
        return self.part.written("!=", "not in")


@dataclass(frozen=True)
class And(Expression):
    """All parts hold. Made by `all_of` or `&`."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " and ".join(
            f"({part})" if isinstance(part, Or) else str(part) for part in self.parts
        )


@dataclass(frozen=True)
class Or(Expression):
    """At least one part holds. Made by `any_of` or `|`."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.parts))


def all_of(parts: Iterable[Expression]) -> Expression:
    """Return the condition that all of these hold.

    Raises:
        ConfigError: there are none.

    """
    flat = [own for part in parts for own in (part.parts if isinstance(part, And) else [part])]
    denied = [own.part for own in flat if isinstance(own, Not) and isinstance(own.part, Among)]
    rest = [own for own in flat if not (isinstance(own, Not) and isinstance(own.part, Among))]
    return _joined([*rest, *map(Not, _merged(denied))], And)


def any_of(parts: Iterable[Expression]) -> Expression:
    """Return the condition that one of these holds.

    Raises:
        ConfigError: there are none.

    """
    flat = [own for part in parts for own in (part.parts if isinstance(part, Or) else [part])]
    among = [own for own in flat if isinstance(own, Among)]
    rest = [own for own in flat if not isinstance(own, Among)]
    return _joined([*rest, *_merged(among)], Or)


def names_of(expression: Expression) -> set[str]:
    """Return the columns that a condition is about."""
    match expression:
        case And(parts) | Or(parts):
            return {name for part in parts for name in names_of(part)}
        case Not(part):
            return {part.name}
        case Among() | Compare() | Missing():
            return {expression.name}
    raise AssertionError(expression)


def quoted(name: str) -> str:
    """Return a column's name as it is written in a condition."""
    if _plain.fullmatch(name) and not _keyword.fullmatch(name):
        return name
    return "`" + name.replace("`", "``") + "`"


def written(value: Value) -> str:
    """Return a value as it is written in a condition."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _joined(
    parts: list[Expression], joint: Callable[[tuple[Expression, ...]], Expression]
) -> Expression:
    distinct = sorted(set(parts), key=str)
    if not distinct:
        raise ConfigError("a condition needs at least one part. Leave the filter out instead.")
    return distinct[0] if len(distinct) == 1 else joint(tuple(distinct))


def _merged(leaves: list[Among]) -> list[Among]:
    """Return one leaf for each column and kind, with the values of all."""
    values: dict[tuple[str, Kind], list[Value]] = {}
    for leaf in leaves:
        values.setdefault((leaf.name, leaf.kind), []).extend(leaf.values)
    return [Among(name, tuple(own)) for (name, _), own in values.items()]


def _negated(expression: Expression) -> Expression:
    match expression:
        case And(parts):
            return any_of(map(_negated, parts))
        case Or(parts):
            return all_of(map(_negated, parts))
        case Not(part):
            return part
        case Compare(name, operator, value):
            return Compare(name, OPPOSITE[operator], value)
        case Among() | Missing():
            return Not(expression)
    raise AssertionError(expression)


def _check_name(name: str) -> None:
    if not name:
        raise ConfigError("a column's name is empty. Name a column of the attributes.")


def _kind(value: Value) -> Kind:
    if isinstance(value, bool):
        return "truth"
    return "string" if isinstance(value, str) else "number"


def _value(name: str, value: object) -> Value:
    """Return a value in its one form: whole numbers as int, other numbers as float."""
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
