"""Rows that match a condition, compared with plain three-valued logic; growing columns, files."""

import math
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fakes.conditions import TYPES, conditions, leaves, rows, truth
from hypothesis import given, settings

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.filters import Attributes, Expression, parse_where

ARROW = {
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "truth": pa.bool_(),
    "time": pa.timestamp("us", "UTC"),
    "list": pa.list_(pa.string()),
    "null": pa.null(),
}


def typed(table: list[dict[str, Any]]) -> Attributes:
    columns = {
        name: pa.array([row[name] for row in table], ARROW[kind]) for name, kind in TYPES.items()
    }
    return Attributes.from_table(pa.table(columns))


@pytest.fixture
def books() -> Attributes:
    return Attributes.from_columns(
        {
            "year": [2019, 2020, None, 2022],
            "lang": ["de", "en", "de", None],
            "stars": [3.5, math.nan, 4.0, 1.0],
            "open": [True, False, None, True],
            "tags": [["a", "b"], [], None, ["c", None]],
            "day": [date(2020, 1, 1), date(2020, 5, 5), None, date(2021, 1, 1)],
        }
    )


@settings(max_examples=150, deadline=None)
@given(rows(), conditions(leaves()))
def test_rows_fit_as_in_sql(table: list[dict[str, Any]], condition: Expression) -> None:
    """Missing values that fit a negation, and exact numbers that are compared as floats."""
    expected = [truth(condition, row) is True for row in table]
    assert typed(table).matching(condition).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(rows(), rows(), conditions(leaves()))
def test_appended_and_taken_rows_keep_their_places(
    first: list[dict[str, Any]], second: list[dict[str, Any]], condition: Expression
) -> None:
    """Attributes that move to a neighbour's vector when an index grows or is cut."""
    joined = typed(first).append(typed(second))
    fits = np.array([truth(condition, row) is True for row in [*first, *second]], np.bool_)
    assert joined.matching(condition).tolist() == fits.tolist()
    order = np.arange(len(fits))[::-2]
    assert joined.take(order).matching(condition).tolist() == fits[order].tolist()


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ("year > 2019", [1]),
        ("not year > 2019", [0]),
        ("year > 2019 or year is missing", [1, 2]),
        ("year >= 2019.5", [1]),
        ("year = 2019.5", []),
        ("year < 1e30", [0, 1]),
        ("year > 1e30", []),
        ("stars is missing", [1]),
        ("stars != 3.5", [2]),
        ("lang > 'da'", [0, 1, 2]),
        ("open = true", [0]),
        ("tags = 'a'", [0]),
        ("tags != 'a'", [1]),
        ("tags in ('c', 'b')", [0]),
        ("tags is missing", [2]),
        ("day = '2020-01-01'", [0]),
        ("day > '2020-01-01T01:00:00+02:00'", [0, 1]),
    ],
)
def test_each_type_by_hand(books: Attributes, where: str, fits: list[int]) -> None:
    """An empty list that counts as missing, or a date that is compared as text."""
    rows = books.take([0, 1, 2])
    assert np.flatnonzero(rows.matching(parse_where(where))).tolist() == fits
    assert rows.estimate(parse_where(where)) == pytest.approx(len(fits) / 3)


def test_an_empty_table_is_valid(books: Attributes) -> None:
    """A mean of nothing, which is NaN and makes every plan wrong."""
    none = books.take([])
    assert none.estimate(parse_where("year = 1 and tags = 'a'")) == 0.0
    assert none.append(books) == books
    assert len(Attributes.from_columns({})) == 0


def test_columns_of_other_arrow_types_are_read() -> None:
    """A column from pandas or Parquet that fits nothing, because it is coded or narrow."""
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2, 3, 4]), pa.array(["x", "y", "x", "z"]), mask=pa.array([False, True, False])
    )
    table = pa.table(
        {
            "code": pa.array(["a", "b", "a"]).dictionary_encode(),
            "small": pa.array([1, 2, 3], pa.uint8()),
            "half": pa.array([0.5, 1.0, 2.0], pa.float32()),
            "large": pa.array(["a", "b", "c"], pa.large_string()),
            "naive": pa.array([datetime(2020, 1, 1)] * 3, pa.timestamp("ns")),
            "hidden": lists,
        }
    )
    for columns, start in ((table, 0), (table.slice(1), 1)):
        attributes = Attributes.from_table(columns)
        where = parse_where("code = 'a' and small >= 1 and half >= 0.5 and large >= 'a'")
        assert attributes.matching(where).tolist() == [True, False, True][start:]
        assert attributes.matching(parse_where("naive = '2020-01-01'")).all()
        assert (
            attributes.matching(parse_where("hidden = 'x'")).tolist()
            == [True, False, False][start:]
        )
        assert (
            attributes.matching(parse_where("hidden != 'q'")).tolist()
            == [True, False, True][start:]
        )


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("years = 1", "no such column. Did you mean year.*Known: year, lang"),
        ("lang = 3", r"lang holds strings \(such as de, en\).*with 3.*quotes: \"3\""),
        ("year = '2020'", r"year holds whole numbers \(such as 2019, 2020\).*without quotes"),
        ("open = 'yes'", "true or false"),
        ("open < 3", "true or false"),
        ("tags < 'a'", "no order"),
        ("tags = 1", r"lists of strings \(such as \['a', 'b'\], \[\]\).*quotes"),
        ("day > 'May'", r"such as 2020-01-01.*\"May\" is not one"),
        ("day < '9999-12-31T23:00-05:00'", "is not one"),
        ("lang = true", r"quotes: \"true\""),
        ("year = 2020 or nope is missing", "no such column"),
    ],
)
def test_conditions_that_cannot_match_are_refused(
    books: Attributes, where: str, message: str
) -> None:
    """A misspelt column or a number in quotes that finds nothing, silently."""
    with pytest.raises(ConfigError, match=message):
        books.matching(parse_where(where))


@pytest.mark.parametrize("bound", [2**53 + 1, 2**53 + 3])
def test_whole_numbers_between_two_floats_are_compared_exactly(bound: int) -> None:
    """A bound that Arrow refuses with a traceback, or that is rounded to a row beyond it."""
    attributes = Attributes.from_columns({"big": [2.0**53, 2.0**53 + 4, None]})
    for condition, fits in {
        f"big > {bound}": [False, True, False],
        f"big >= {bound}": [False, True, False],
        f"big < {bound}": [True, False, False],
        f"big <= {bound}": [True, False, False],
        f"big = {bound}": [False, False, False],
        f"big != {bound}": [True, True, False],
        f"big in ({bound}, {2**53 + 4})": [False, True, False],
    }.items():
        assert attributes.matching(parse_where(condition)).tolist() == fits, condition


def test_new_rows_may_lack_a_column_but_not_bring_one(books: Attributes) -> None:
    """A misspelt column that hides the values of all new rows."""
    grown = books.append(Attributes.from_columns({"year": [2023], "stars": [5]}))
    assert len(grown) == 5
    assert grown.matching(parse_where("year > 2022 and lang is missing")).tolist()[-1]
    assert grown.matching(parse_where("stars = 5")).tolist() == [0, 0, 0, 0, 1]
    with pytest.raises(DataError, match="column 'years'.*Did you mean year"):
        books.append(Attributes.from_columns({"years": [2023]}))
    with pytest.raises(
        DataError, match=r"'year' holds whole numbers .*but in the new rows strings"
    ):
        books.append(Attributes.from_columns({"year": ["2023"]}))
    with pytest.raises(DataError, match="numbers"):
        books.append(Attributes.from_columns({"year": [2023.5]}))
    rounded = books.append(Attributes.from_columns({"stars": [2**60 + 1]}))
    assert rounded.table["stars"].to_pylist()[-1] == 2.0**60
    empty = Attributes.from_columns({"year": [None]})
    joined = empty.append(Attributes.from_columns({"year": ["x"]}))
    assert joined.matching(parse_where("year = 'x'")).tolist() == [False, True]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, "x"]}, "'a' cannot be stored"),
        ({"a": [1], "b": [1, 2]}, "equally long"),
        ({"a": [[1, 2]]}, "lists of int64"),
        ({"a": [{"b": 1}]}, "struct"),
        ({"a": [2**63]}, "'a'"),
        ({"": [1]}, "distinct names"),
    ],
)
def test_columns_of_unsupported_types_are_refused(columns: dict[str, Any], message: str) -> None:
    """A column that is skipped silently."""
    with pytest.raises(DataError, match=message):
        Attributes.from_columns(columns)


def test_rows_out_of_range_are_refused(books: Attributes) -> None:
    """Row -1, with which a search library says "nothing", read as the last document."""
    with pytest.raises(IndexError):
        books.take([-1])
    with pytest.raises(IndexError):
        books.take([4])


def test_a_written_file_is_read_back(books: Attributes, tmp_path: Path) -> None:
    """Types that change on disk, and a cut file that is read as fewer rows."""
    path = tmp_path / "attributes.arrow"
    books.write(path)
    assert Attributes.read(path) == books
    assert [item.name for item in tmp_path.iterdir()] == ["attributes.arrow"]
    grown = Attributes.read(path).append(books)
    grown.write(path)
    assert len(Attributes.read(path)) == 8
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(DataError, match="Write them again"):
        Attributes.read(path)
    with pytest.raises(DataError, match="none"):
        Attributes.read(tmp_path / "none")
