"""The same condition in Milvus's language."""

import json
from pathlib import Path

import pytest

from retrodistill.base.errors import ConfigError
from retrodistill.data.filters import Attributes, milvus_filter, parse_where

LANGS = ["de", "q\"u\\o'te\n\t or year > 0", "é😀", None, "x\x07y"]
ROWS = [
    {
        "year": [2019, 2020, None, -5][i % 4],
        "lang": LANGS[i % 5],
        "open": [True, False, None][i % 3],
        "stars": [1.5, None, 3.0, 1e-7][i % 4],
        "tags": [["a"], [], None, ["a", "b"], ["c"]][i % 5],
    }
    for i in range(60)
]


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("year >= 2020", "year >= 2020"),
        ("lang = 'de'", 'lang == "de"'),
        ("lang in ('de', 'en')", 'lang in ["de", "en"]'),
        ("lang != 'de'", 'lang is not null and lang != "de"'),
        ("open = true", "open == true"),
        ("tags = 'a'", 'array_contains(tags, "a")'),
        ("tags not in ('a', 'b')", 'tags is not null and not array_contains_any(tags, ["a", "b"])'),
        ("year is missing or lang is not missing", "(lang is not null) or (year is null)"),
        ("a=1 and (b=1 or c=1)", "(a == 1) and ((b == 1) or (c == 1))"),
    ],
)
def test_conditions_are_written_in_milvuss_language(where: str, text: str) -> None:
    """Precedence that another language reads differently."""
    assert milvus_filter(parse_where(where), lists=["tags"]) == text


def test_a_string_cannot_leave_its_quotes() -> None:
    """A value with a quote that adds a condition of its own."""
    where = parse_where(f"lang = {json.dumps(LANGS[1])}")
    assert milvus_filter(where) == r'lang == "q\"u\\o' + "'" + r'te\n\t or year > 0"'


@pytest.mark.parametrize("where", ["`a b` = 1", "a.b = 1", "`or` = 1", "größe = 1", "tags < 'a'"])
def test_what_milvus_cannot_say_is_refused(where: str) -> None:
    """A name that is pasted into the filter as it is."""
    with pytest.raises(ConfigError, match=r"Rename the column|no order"):
        milvus_filter(parse_where(where), lists=["tags"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_milvus_finds_the_same_rows(tmp_path: Path) -> None:
    """A filter that is valid there and means something else, above all where values are missing."""
    pymilvus = pytest.importorskip("pymilvus")
    kinds = pymilvus.DataType
    client = pymilvus.MilvusClient(str(tmp_path / "milvus.db"))
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", kinds.INT64, is_primary=True)
    schema.add_field("vector", kinds.FLOAT_VECTOR, dim=2)
    schema.add_field("year", kinds.INT64, nullable=True)
    schema.add_field("lang", kinds.VARCHAR, max_length=99, nullable=True)
    schema.add_field("open", kinds.BOOL, nullable=True)
    schema.add_field("stars", kinds.DOUBLE, nullable=True)
    schema.add_field(
        "tags", kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=8, max_length=9, nullable=True
    )
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection("c", schema=schema, index_params=index)
    client.insert("c", [{"id": i, "vector": [1.0, i], **row} for i, row in enumerate(ROWS)])
    client.load_collection("c")
    attributes = Attributes.from_columns({name: [row[name] for row in ROWS] for name in ROWS[0]})
    for where in (
        "year >= 2020",
        "year != 2020",
        "year not in (2020, -5)",
        "year > -7",
        "year > 2019.5",
        "year is missing",
        "lang in ('de', 'é😀')",
        "lang not in ('de', 'en')",
        f"lang = {json.dumps(LANGS[1])}",
        "lang = 'x\\u0007y'",
        "open != true",
        "not stars > 1e-6",
        "tags = 'a'",
        "tags not in ('b', 'c')",
        "tags != 'a' and tags != 'c'",
        "not (year is missing or lang != 'de') or tags = 'a'",
        "year = 2019 and not (lang = 'de' or stars < 1)",
    ):
        condition = parse_where(where)
        text = milvus_filter(condition, lists=["tags"])
        hits = client.query("c", filter=text, output_fields=["id"], limit=1000)
        expected = attributes.matching(condition).nonzero()[0].tolist()
        assert sorted(row["id"] for row in hits) == expected, where
        assert 0 < len(expected) < len(ROWS), where
    client.close()
