"""Conditions from text: what they mean, their one form, and what is refused."""

from pathlib import Path

import pytest
from fakes.conditions import any_leaves, conditions
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.filters import (
    Among,
    Attributes,
    Compare,
    Expression,
    Missing,
    all_of,
    any_of,
    parse_where,
    read_conditions,
)
from retrodistill.data.filters.where import MAX_CHARACTERS, MAX_DEPTH

A, B, C = Among("a", (1,)), Among("b", (1,)), Among("c", (1,))


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a = 1", A),
        ("a == 1.0", A),
        ("`a`=+1", A),
        ("a != 1", ~A),
        ("A = 1", Among("A", (1,))),
        ("x<-3.5e1", Compare("x", "<", -35)),
        ("x <= .5", Compare("x", "<=", 0.5)),
        ("x.y > 'it\\'s'", Compare("x.y", ">", "it's")),
        ('größe >= "\\u00e9\\ud83d\\ude00\\n\\\\"', Compare("größe", ">=", "é😀\n\\")),
        ("`two ``words``` is missing", Missing("two `words`")),
        ("x IS NOT Missing", ~Missing("x")),
        ("`in` in ('b', \"a\",)", Among("in", ("a", "b"))),
        ("x not in (1, 2)", ~Among("x", (1, 2))),
        ("x = true or x = false", Among("x", (False, True))),
        ("year between 2019 and 2021", Compare("year", ">=", 2019) & Compare("year", "<=", 2021)),
        ("x not between 1 and 2", Compare("x", "<", 1) | Compare("x", ">", 2)),
        ("a=1 or b=1 and c=1", any_of([A, all_of([B, C])])),
        ("(a=1 or b=1) and c=1", all_of([any_of([A, B]), C])),
        ("not a=1 and b=1", ~A & B),
        ("not not not (a=1 or b=1)", ~A & ~B),
        ("a between 1 and 2 and b=1", all_of([Compare("a", ">=", 1), Compare("a", "<=", 2), B])),
        ("x > 9223372036854775807", Compare("x", ">", 2**63 - 1)),
    ],
)
def test_the_language_means_what_it_says(text: str, meaning: Expression) -> None:
    """A filter that is read with the wrong precedence, and finds other documents."""
    assert parse_where(text) == meaning


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a=1 and b=1", "b = 1  AND\n(a = 1)"),
        ("a=1 and (b=1 and c=1)", "(c=1 and a=1) and b=1 and a=1"),
        ("x in (2, 1, 2)", "x=1 or x=2"),
        ("x not in (1, 2)", "x != 2 and not x = 1"),
        ("not (a=1 or not b=1)", "a != 1 and b = 1"),
        ("not x < 3", "x >= 3.0"),
        ("not (not x is missing)", "x is missing"),
        ("x = 'a' or y = 1 or x = \"b\"", "x in ('b', 'a') or y = 1"),
    ],
)
def test_equal_conditions_are_one_value(one: str, other: str) -> None:
    """Queries of one condition that are searched one by one, since they are written differently."""
    assert parse_where(one) == parse_where(other)
    assert hash(parse_where(one)) == hash(parse_where(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = true"),
        ("x = 1", "x = '1'"),
        ("x in (0, 1)", "x in (false, true)"),
        ("x < 3", "x <= 3"),
        ("a=1 and b=1", "a=1 or b=1"),
        ("x = 9007199254740993", "x = 9007199254740992"),
        ("x = 1 or x = 'a'", "x = 1"),
    ],
)
def test_other_conditions_are_other_values(one: str, other: str) -> None:
    """`x = 1` that is answered from the cache with the documents of `x = true`."""
    assert parse_where(one) != parse_where(other)


@settings(max_examples=150, deadline=None)
@given(conditions(any_leaves()))
def test_a_condition_that_is_written_out_is_read_back(condition: Expression) -> None:
    """A condition that is stored with a run and means something else when it is used again."""
    read = parse_where(str(condition))
    assert read == condition
    assert hash(read) == hash(condition)
    assert str(read) == str(condition)


@settings(max_examples=100, deadline=None)
@given(st.lists(conditions(any_leaves()), min_size=2, max_size=4), st.randoms())
def test_order_and_repetition_do_not_count(parts: list[Expression], random: object) -> None:
    """A normal form that depends on where it started."""
    shuffled = [*parts, parts[0]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for join in (all_of, any_of):
        assert join(parts) == join(shuffled)
        assert ~~join(parts) == join(parts)
        assert join([join(parts[:2]), *parts[2:]]) == join(parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "filter ends at column 1.*omit it"),
        ("year >> 2020", r"column 7.*expected a string in quotes, a number, true or false.*'>'"),
        ("lang = de", r"column 8.*found 'de'.*in quotes: \"de\".*Example: year >= 2020"),
        ('lang = "de', "column 8.*closing quote"),
        ("lang = “de”", "column 8"),
        ("a = 1 b = 2", "column 7.*expected the end, and or or"),
        ("a = 1 and", "ends at column 10, where a column's name"),
        ("(a = 1", r"ends at column 7, where '\)'"),
        ("a in ()", "column 7"),
        ("a in (1, 'x')", "one kind"),
        ("a < true", "no order"),
        ("a = 1e999", "finite"),
        ("a = '\\q'", r"column 6.*invalid escape"),
        ("a = '\\ud800'", "column 5.*surrogate"),
        ("2020 < a", "column 1.*found '2020'"),
        ("is = 3", "column 1.*backticks: `is`"),
        ("__import__('os').system('x')", r"column 11.*'\('"),
        ("a = 1; drop", "column 6"),
        ("a = `b`", "column 5"),
        ("a = 1 and ÷", "column 11"),
        ('"\\""' * 9 + "“", "column 1"),
        ("(" * (MAX_DEPTH + 1) + "a = 1" + ")" * (MAX_DEPTH + 1), f"column {MAX_DEPTH + 1}.*deep"),
        ("a = 1 or " * (MAX_CHARACTERS // 9) + "b = 1 or c = 1", "100,000 characters"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    """A parser's own traceback, or a filter that is read up to the mistake and no further."""
    with pytest.raises(ConfigError, match=message):
        parse_where(text)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*"()=<>,`'\"\\", "and", "or", "not", "in", "is", "a", "1", "-", "between", " ", "é"]
        ),
        max_size=12,
    ).map(" ".join)
)
def test_no_text_does_anything_but_parse_or_explain(text: str) -> None:
    """An exception of the parser library that reaches the user."""
    try:
        read = parse_where(text)
    except ConfigError:
        return
    assert parse_where(str(read)) == read


def test_deep_but_allowed_text_is_read() -> None:
    """A limit that bites before it is reached."""
    text = "(" * MAX_DEPTH + "not " * 5000 + "a = 1" + ")" * MAX_DEPTH
    assert parse_where(text) == A
    assert Attributes.from_columns({"a": [1, 2]}).matching(parse_where(text)).tolist() == [1, 0]


def test_a_file_of_conditions_ends_its_lines_as_editors_do(tmp_path: Path) -> None:
    """A string that is cut at a character which only Unicode calls the end of a line, or a BOM."""
    text = '\ufeffa = 1\r\n\n# none\nb = "x\u2028y\x85z"\n'
    (tmp_path / "asked.txt").write_bytes(text.encode())
    assert read_conditions(tmp_path / "asked.txt") == ["a = 1", 'b = "x\u2028y\x85z"']
    (tmp_path / "asked.txt").write_text('b = "\u2028"\na =\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"asked.txt, line 2: the filter ends"):
        read_conditions(tmp_path / "asked.txt")
