"""Conditions from text: `year >= 2020 and source in ("a", "b") and not (lang = 'de')`."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NoReturn

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.filters.expressions import (
    KEYWORDS,
    PLAIN_NAME,
    Among,
    Compare,
    Expression,
    Missing,
    Order,
    Value,
    all_of,
    any_of,
)

MAX_CHARACTERS = 100_000
MAX_DEPTH = 20
EXAMPLE = 'year >= 2020 and source in ("a", "b") and not (lang = \'de\' or stars < 3.5)'

GRAMMAR = """
?start: either
?either: both (OR both)*
?both: unary (AND unary)*
?unary: comparison
      | NOT+ unit -> negation
      | group
?unit: comparison | group
?group: LEFT either RIGHT -> inner
comparison: name ORDER value            -> order
          | name EQUAL value            -> equal
          | name UNEQUAL value          -> unequal
          | name IN values              -> among
          | name NOT IN values          -> not_among
          | name BETWEEN value AND value     -> between
          | name NOT BETWEEN value AND value -> not_between
          | name IS MISSING             -> missing
          | name IS NOT MISSING         -> not_missing
values: LEFT value (COMMA value)* COMMA? RIGHT
name: NAME -> plain_name
    | TICKED -> ticked_name
value: STRING -> string
     | NUMBER -> number
     | TRUE -> true
     | FALSE -> false

ORDER: /[<>]=?/
EQUAL: /==?/
UNEQUAL: /!=/
LEFT: "("
RIGHT: ")"
COMMA: ","
"""
TERMINALS = "\n".join(
    [
        *(rf"{word.upper()}.2: /{word}(?![\w.])/i" for word in KEYWORDS),
        f"NAME: /{PLAIN_NAME}/",
        "TICKED: /`([^`]|``)+`/",
        r"""STRING: /"([^"\\]|\\.)*"|'([^'\\]|\\.)*'/s""",
        r"NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?/",
        r"%ignore /\s+/",
    ]
)

WORDS = {
    "NAME": "a column's name",
    "TICKED": "a column's name",
    "STRING": "a string in quotes",
    "NUMBER": "a number",
    "ORDER": "<, <=, >, >=",
    "EQUAL": "=",
    "UNEQUAL": "!=",
    "LEFT": "'('",
    "RIGHT": "')'",
    "COMMA": "','",
    "$END": "the end",
    **{word.upper(): word for word in KEYWORDS},
}
"""How the parts of speech are called in messages, in the order in which they are listed."""

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {c: c for c in "\"'\\/"}


def parse_where(text: str) -> Expression:
    r"""Return the condition that a text describes.

    Comparisons are `=` (or `==`), `!=`, `<`, `<=`, `>`, `>=`, `in (...)`, `not in (...)`,
    `between 1 and 2`, `not between 1 and 2`, `is missing` and `is not missing`, of a column with a
    number, a string, true or false. They are joined by `not`, `and`, `or`, which bind in this
    order, and by parentheses. Keywords may be in capitals.

    A name is made of letters, digits, `_` and `.`; another one, or a keyword, is written in
    backticks (a backtick in it twice). Strings are in single or double quotes, with the escapes of
    JSON, and `\'`.

    A text is read and never run. It has at most 100,000 characters and parentheses 20 deep.

    Raises:
        ConfigError: a text that is not of this form; its column is named.

    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"a filter may have {MAX_CHARACTERS:,} characters, but this one has {len(text):,}. "
            "Give the documents a column that says it shorter."
        )
    try:
        try:
            _check_depth(_parser().lex(text))
            return _parser().parse(text)  # type: ignore[return-value]
        except UnexpectedCharacters as error:
            before = _parser().parse_interactive(text[: error.pos_in_stream])
            before.exhaust_lexer()
            _refuse(text, error.pos_in_stream, None, before.accepts())  # type: ignore[no-untyped-call]
    except UnexpectedToken as error:
        _refuse(text, error.token.start_pos, error.token, error.accepts or error.expected)


def read_conditions(path: Path) -> list[str]:
    """Return the conditions in a file, a line each; empty lines and those behind # are left out.

    Raises:
        DataError: there is no such file, or a line is no condition.

    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    kept = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            try:
                parse_where(line)
            except ConfigError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            kept.append(line)
    return kept


@v_args(inline=True)
class _Builder(Transformer[Token, Expression]):
    """Makes each phrase when the parser has read it."""

    def either(self, *parts: Expression | Token) -> Expression:
        return any_of(part for part in parts if isinstance(part, Expression))

    def both(self, *parts: Expression | Token) -> Expression:
        return all_of(part for part in parts if isinstance(part, Expression))

    def negation(self, *parts: Expression | Token) -> Expression:
        *nots, part = parts
        assert isinstance(part, Expression)
        return ~part if len(nots) % 2 else part

    def inner(self, _: Token, part: Expression, __: Token) -> Expression:
        return part

    def order(self, name: str, operator: Token, value: str | float) -> Expression:
        order: Order = operator.value
        return Compare(name, order, value)

    def equal(self, name: str, _: Token, value: Value) -> Expression:
        return Among(name, (value,))

    def unequal(self, name: str, _: Token, value: Value) -> Expression:
        return ~Among(name, (value,))

    def among(self, name: str, _: Token, values: tuple[Value, ...]) -> Expression:
        return Among(name, values)

    def not_among(self, name: str, _: Token, __: Token, values: tuple[Value, ...]) -> Expression:
        return ~Among(name, values)

    def between(
        self, name: str, _: Token, low: str | float, __: Token, high: str | float
    ) -> Expression:
        return Compare(name, ">=", low) & Compare(name, "<=", high)

    def not_between(
        self, name: str, _: Token, __: Token, low: str | float, ___: Token, high: str | float
    ) -> Expression:
        return Compare(name, "<", low) | Compare(name, ">", high)

    def missing(self, name: str, *_: Token) -> Expression:
        return Missing(name)

    def not_missing(self, name: str, *_: Token) -> Expression:
        return ~Missing(name)

    def values(self, *parts: Value) -> tuple[Value, ...]:
        return tuple(part for part in parts if not isinstance(part, Token))

    def plain_name(self, name: Token) -> str:
        return str(name.value)

    def ticked_name(self, name: Token) -> str:
        return str(name.value)[1:-1].replace("``", "`")

    def string(self, token: Token) -> str:
        return _unescaped(str(token.value)[1:-1], token.start_pos or 0)

    def number(self, token: Token) -> int | float:
        digits = str(token.value)
        short = len(digits.lstrip("+-0")) < 20 and set(digits) <= set("+-0123456789")
        return int(digits) if short else float(digits)

    def true(self, _: Token) -> bool:
        return True

    def false(self, _: Token) -> bool:
        return False


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR + TERMINALS, parser="lalr", lexer="basic", transformer=_Builder())


def _check_depth(tokens: Iterable[Token]) -> None:
    depth = 0
    for token in tokens:
        depth += (token.type == "LEFT") - (token.type == "RIGHT")
        if depth > MAX_DEPTH:
            raise ConfigError(
                f"at column {(token.start_pos or 0) + 1} of the filter, parentheses stand more "
                f"than {MAX_DEPTH} deep. Write it flatter: a in (1, 2) for a = 1 or a = 2."
            )


def _unescaped(text: str, start: int) -> str:
    def character(found: re.Match[str]) -> str:
        if found[1]:
            return chr(int(found[1], 16))
        if found[2] not in ESCAPES:
            raise ConfigError(
                f"at column {start + found.start() + 2} of the filter, {found[0]!r} is no escape. "
                r"Write a backslash twice (\\), or one of \" \' \n \t \r \b \f \u00e9."
            )
        return ESCAPES[found[2]]

    try:
        plain = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", character, text, flags=re.DOTALL)
        return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ConfigError(
            f"the string at column {start + 1} of the filter holds half of a surrogate pair. "
            "Write the character itself."
        ) from None


def _refuse(text: str, start: int | None, token: Token | None, expected: set[str]) -> NoReturn:
    """Raise a ConfigError that says where, what came, what was expected, and what to do."""
    place = len(text) if start is None or (token is not None and token.type == "$END") else start
    shown = text[place : place + len(token or "x")][:40]
    hint = ""
    if not text.strip():
        hint = " The filter is empty: leave it out to search everything."
    elif token is None and shown in "\"'`":
        hint = " Is its closing quote missing?"
    elif token is not None and token.type == "NAME" and "STRING" in expected:
        hint = f' A string is written in quotes: "{shown}".'
    elif token is not None and token.type.lower() in KEYWORDS and "NAME" in expected:
        hint = f" A column that is called so is written in backticks: `{shown}`."
    *most, last = dict.fromkeys(word for name, word in WORDS.items() if name in expected)
    wanted = f"{', '.join(most)} or {last}" if most else last
    if shown:
        said = f"at column {place + 1} of the filter, expected {wanted}, but found {shown!r}."
    else:
        said = f"the filter ends at column {place + 1}, where {wanted} was expected."
    raise ConfigError(f"{said}{hint} Example: {EXAMPLE}.")
