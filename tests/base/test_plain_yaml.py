"""YAML of plain types: every mistake is a sentence with the file and the line."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.base.config.plain_yaml import DEEPEST, parse_yaml
from retrodistill.base.errors import ConfigError


@pytest.mark.parametrize(
    "value",
    [
        "!!int abc",
        "!!int ''",
        "!!float x",
        "!!bool maybe",
        "!!timestamp x",
        "!!binary x",
        "!!map [1, 2]",
        "!!set [1]",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!python/name:os.system ''",
        "!mine 1",
        "!!null [1]",
        "!!str {=: 3}",
        "1" + "0" * 5000,
        "[" * 1500,
        "*absent",
        "{? [1] : 2}",
        "{? {a: 1} : 2}",
        "{? !!map [1, 2] : 3}",
        "{? &a [*a] : 1}",
        '"\\ud800"',
        "\0",
        "b: c",
        "{b: 1, b: 2}",
        "{!!int x: 1}",
    ],
)
def test_a_mistake_is_a_sentence_with_file_and_line(value: str) -> None:
    """A traceback from inside PyYAML, of a ValueError, KeyError, TypeError or RecursionError."""
    with pytest.raises(ConfigError, match=r"^plan\.yaml, line 2(:|, is not YAML:) .*\.$"):
        parse_yaml(f"first: 1\na: {value}", "plan.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-13-45", "2024-13-45"),
        ("2024-01-02", "2024-01-02"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("12:30", "12:30"),
        ("1e5", "1e5"),
        ("<<", "<<"),
        ("=", "="),
        ("12", 12),
        ("-0.5", -0.5),
        ("1.0e-05", 1e-5),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("[1, [x]]", [1, ["x"]]),
    ],
)
def test_what_is_not_plainly_a_number_stays_as_it_was_written(text: str, expected: object) -> None:
    """A folder `007` that becomes 7, `12:30` that becomes 750, or a name that becomes a date."""
    value = parse_yaml(f"a: {text}", "f")["a"]
    assert (value, type(value)) == (expected, type(expected))


def test_nesting_up_to_the_limit_is_read() -> None:
    """The limit that refuses an attack must not refuse a plan."""
    depth = DEEPEST - 3
    assert parse_yaml("a: " + "[" * depth + "]" * depth, "f")["a"] is not None


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(value=VALUES)
def test_what_is_written_as_yaml_is_read_back(value: Any) -> None:
    """A card's or a printed config's name that comes back as another value."""
    text = yaml.safe_dump({"a": value}, allow_unicode=False)
    assert parse_yaml(text, "f") == {"a": value}
