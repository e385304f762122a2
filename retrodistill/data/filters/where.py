"""Parse filter conditions: `year >= 2020 and source in ("a", "b") and not (lang = 'de')`."""

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
"""Token -> its name in messages, in the order in which messages list them."""

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {c: c for c in "\"'\\/"}


def parse_where(text: str) -> Expression:
    r"""Return the condition that a text describes.

    Comparisons are `=` (or `==`), `!=`, `<`, `<=`, `>`, `>=`, `in (...)`, `not in (...)`,
    `between 1 and 2`, `not between 1 and 2`, `is missing` and `is not missing`, of a column with a
    number, a string, true or false. They are combined with parentheses and `not`, `and`, `or`, in
    decreasing precedence. Keywords are case-insensitive.

    A name consists of letters, digits, `_` and `.`; any other name, or a keyword, is written in
    backticks (a backtick in it doubled). Strings are in single or double quotes, with the escapes
    of JSON, and `\'`.

    The text is parsed and never executed. It may have 100,000 characters and parentheses nested 20
    deep.

    Raises:
        ConfigError: a syntax error; the message names its column.

    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"a filter may have {MAX_CHARACTERS:,} characters, but this one has {len(text):,}. "
            "Add a column to the documents that makes it shorter."
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
    """Return the conditions in a file, one a line; empty lines and comments (#) are skipped.

    Raises:
        DataError: the file cannot be read, or a line is not a condition.

    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    conditions = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            try:
                parse_where(line)
            except ConfigError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            conditions.append(line)
    return conditions


@v_args(inline=True)
class _ExpressionBuilder(Transformer[Token, Expression]):
    """Builds the expression of each rule of the grammar as it is parsed."""

    def either(self, *operands: Expression | Token) -> Expression:
        return any_of(operand for operand in operands if isinstance(operand, Expression))

    def both(self, *operands: Expression | Token) -> Expression:
        return all_of(operand for operand in operands if isinstance(operand, Expression))

    def negation(self, *operands: Expression | Token) -> Expression:
        *nots, operand = operands
        assert isinstance(operand, Expression)
        return ~operand if len(nots) % 2 else operand

    def inner(self, _: Token, operand: Expression, __: Token) -> Expression:
        return operand

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

    def values(self, *values: Value) -> tuple[Value, ...]:
        return tuple(value for value in values if not isinstance(value, Token))

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
    return Lark(GRAMMAR + TERMINALS, parser="lalr", lexer="basic", transformer=_ExpressionBuilder())


def _check_depth(tokens: Iterable[Token]) -> None:
    depth = 0
    for token in tokens:
        depth += (token.type == "LEFT") - (token.type == "RIGHT")
        if depth > MAX_DEPTH:
            raise ConfigError(
                f"at column {(token.start_pos or 0) + 1} of the filter, parentheses are nested "
                f"more than {MAX_DEPTH} deep. Flatten it: a in (1, 2) for a = 1 or a = 2."
            )


def _unescaped(text: str, start: int) -> str:
    def character(escape: re.Match[str]) -> str:
        if escape[1]:
            return chr(int(escape[1], 16))
        if escape[2] not in ESCAPES:
            raise ConfigError(
                f"at column {start + escape.start() + 2} of the filter, invalid escape "
                f"{escape[0]!r}. "
                r"Double the backslash (\\), or write one of \" \' \n \t \r \b \f \u00e9."
            )
        return ESCAPES[escape[2]]

    try:
        plain = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", character, text, flags=re.DOTALL)
        return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ConfigError(
            f"the string at column {start + 1} of the filter holds half of a surrogate pair. "
            "Write the character itself."
        ) from None


def _refuse(text: str, start: int | None, token: Token | None, expected: set[str]) -> NoReturn:
    """Raise a ConfigError with the position, the token, what was expected, and what to do."""
    position = len(text) if start is None or (token is not None and token.type == "$END") else start
    shown = text[position : position + len(token or "x")][:40]
    hint = ""
    if not text.strip():
        hint = " The filter is empty: omit it to search everything."
    elif token is None and shown in "\"'`":
        hint = " Is its closing quote missing?"
    elif token is not None and token.type == "NAME" and "STRING" in expected:
        hint = f' A string is written in quotes: "{shown}".'
    elif token is not None and token.type.lower() in KEYWORDS and "NAME" in expected:
        hint = f" Write a column of this name in backticks: `{shown}`."
    *several, last = dict.fromkeys(word for name, word in WORDS.items() if name in expected)
    expectation = f"{', '.join(several)} or {last}" if several else last
    if shown:
        problem = (
            f"at column {position + 1} of the filter, expected {expectation}, but found {shown!r}."
        )
    else:
        problem = f"the filter ends at column {position + 1}, where {expectation} was expected."
    raise ConfigError(f"{problem}{hint} Example: {EXAMPLE}.")
