"""Attributes of texts: from a collection's own fields, or from a file beside it."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodistill.base.errors import DataError
from retrodistill.data.datasets import Collection, load_collection, read_attributes
from retrodistill.data.filters import Attributes, parse_where

DOCS = [
    {"_id": "d1", "title": "One", "text": "first", "metadata": {"year": 2019, "tags": ["a", "b"]}},
    {"_id": "d2", "text": "two", "metadata": {}, "lang": "de"},
    {"_id": 3, "text": "three", "lang": None, "metadata": {"year": 2020.5, "by": {"name": "X"}}},
]
COLUMNS = {
    "year": [2019.0, None, 2020.5],
    "tags": [["a", "b"], None, None],
    "lang": [None, "de", None],
    "by.name": [None, None, "X"],
}


def save_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "collections"


def beir(folder: Path, docs: list[dict[str, Any]]) -> Collection:
    save_jsonl(folder / "corpus.jsonl", docs)
    save_jsonl(folder / "queries.jsonl", [{"_id": "q1", "text": "what", "kind": "short"}])
    return load_collection(f"beir:{folder}")


def test_the_fields_of_a_beir_corpus_are_columns(tmp_path: Path, cache: Path) -> None:
    """A field that moves to the next document where one lacks it."""
    collection = beir(tmp_path / "data", DOCS)
    table = collection.docs.attributes()
    assert table.to_pydict() == COLUMNS
    assert table.schema.field("year").type == pa.float64()
    assert collection.docs.attributes(["lang", "year"]).column_names == ["lang", "year"]
    assert collection.queries.attributes().to_pydict() == {"kind": ["short"]}
    where = parse_where("`by.name` = 'X' or tags = 'b'")
    assert Attributes.from_table(table).matching(where).tolist() == [True, False, True]


def test_attributes_are_read_once_and_only_when_asked_for(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second pass over a large corpus in each process, or without need."""
    from retrodistill.data.datasets import beir as module

    readings = []
    fields_from = module.fields_from
    monkeypatch.setattr(
        module, "fields_from", lambda record: readings.append(1) or fields_from(record)
    )
    collection = beir(tmp_path / "data", DOCS)
    assert list(cache.rglob("*attributes*")) == readings == []
    table = collection.docs.attributes()
    assert len(readings) == 3
    reopened = load_collection(f"beir:{tmp_path / 'data'}").docs
    assert reopened.attributes().equals(table)
    assert len(readings) == 3
    (cached,) = cache.rglob("docs.attributes*")
    cached.write_bytes(cached.read_bytes()[:-9])
    assert reopened.attributes().equals(table)
    assert len(readings) == 6
    content = bytearray(cached.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    cached.write_bytes(content)
    assert reopened.attributes().equals(table), "a flipped byte must not be another value"
    assert len(readings) == 9


def test_a_corpus_that_changes_has_other_attributes(tmp_path: Path, cache: Path) -> None:
    """Years of another edition of the corpus; or those of the next line."""
    before = beir(tmp_path / "data", DOCS)
    before.docs.attributes()
    after = beir(tmp_path / "data", [{"_id": "d1", "text": "x", "year": 1}])
    assert after.docs.attributes().to_pydict() == {"year": [1]}
    save_jsonl(tmp_path / "data" / "corpus.jsonl", DOCS[::-1])
    with pytest.raises(DataError, match="was changed after they were read"):
        after.docs.attributes(["lang"])


def test_fields_of_several_types_are_skipped_and_reported(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A number in one line and a string in another, of which one half is lost."""
    docs = [
        {"_id": "a", "text": "x", "year": 2019, "refs": [1, 2], "ok": True},
        {"_id": "b", "text": "x", "year": "2020", "big": 2**70},
    ]
    for _ in range(2):  # from the file, then from the cache
        collection = beir(tmp_path / "data", docs).docs
        assert collection.attributes().to_pydict() == {"ok": [True, None]}
        messages = " ".join(capfd.readouterr().err.split())
        assert "corpus.jsonl:1 holds a whole number, but" in messages
        assert "corpus.jsonl:2 holds a string" in messages
        assert "a list with other values than strings" in messages
        assert "'big'" in messages
    with pytest.raises(DataError, match=r"'year': .*corpus.jsonl:2 holds a string"):
        collection.attributes(["ok", "year"])


def test_missing_and_excess_fields_are_reported(tmp_path: Path, cache: Path) -> None:
    """An empty column for a misspelt name."""
    collection = beir(tmp_path / "data", DOCS)
    with pytest.raises(DataError, match=r"'years'. Did you mean 'year'.*Known: year, tags"):
        collection.docs.attributes(["years"])
    bare = beir(tmp_path / "bare", [{"_id": "a", "text": "x", "metadata": {}}])
    with pytest.raises(DataError, match="no field beside title and text.*Give a file"):
        bare.docs.attributes()
    twice = beir(tmp_path / "twice", [{"_id": "a", "text": "x", "y": 1, "metadata": {"y": 2}}])
    with pytest.raises(DataError, match=r"corpus.jsonl:1: duplicate field y"):
        twice.docs.attributes()
    wide = beir(tmp_path / "many", [{"_id": "a", "text": "x", **{f"f{i}": 1 for i in range(1001)}}])
    with pytest.raises(DataError, match="more than 1,000 fields"):
        wide.docs.attributes()
    assert wide.docs.attributes(["f7"]).to_pydict() == {"f7": [1]}


def test_fields_that_appear_late_are_missing_before(tmp_path: Path, cache: Path) -> None:
    """Columns of different lengths where a field first occurs in a later batch."""
    docs = [{"_id": str(i), "text": "x", "n": i if i < 17_000 else i + 0.5} for i in range(20_000)]
    docs[19_000]["late"] = "yes"
    table = beir(tmp_path / "data", docs).docs.attributes()
    assert table["late"].null_count == 19_999
    assert table["late"][19_000].as_py() == "yes"
    assert table["n"][19_999].as_py() == 19_999.5


def test_other_sources_have_attributes_too(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields of ir_datasets and the hub that are lost."""
    from typing import NamedTuple

    import datasets
    import ir_datasets
    from ir_datasets.datasets.base import Dataset
    from ir_datasets.formats import BaseDocs, TsvQueries
    from ir_datasets.util import LocalDownload

    class Doc(NamedTuple):
        doc_id: str
        title: str
        text: str
        date: str
        authors: tuple[str, ...]

    class Docs(BaseDocs):
        def docs_iter(self) -> Any:
            return iter([Doc("d1", "t", "x", "2020-05", ("A", "B")), Doc("d2", "t", "y", "", ())])

        def docs_cls(self) -> type:
            return Doc

    (tmp_path / "queries.tsv").write_text("q1\tfirst\n")
    queries = TsvQueries(LocalDownload(tmp_path / "queries.tsv"))
    ir_datasets.registry.register("made-attributes", Dataset(Docs(), queries))
    irds = load_collection("irds:made-attributes")
    expected = {"date": ["2020-05", ""], "authors": [["A", "B"], []]}
    assert irds.docs.attributes().to_pydict() == expected
    with pytest.raises(DataError, match="no field beside"):
        irds.queries.attributes()

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    save_jsonl(tmp_path / "hub" / "corpus" / "corpus.jsonl", DOCS[:1])
    save_jsonl(tmp_path / "hub" / "queries" / "queries.jsonl", [{"_id": "q1", "text": "what"}])
    hub = load_collection(f"hf:{tmp_path / 'hub'}")
    assert hub.docs.attributes().to_pydict() == {"year": [2019], "tags": [["a", "b"]]}


ROWS = [("d2", "de", 2020, "2020-01-31"), ("d1", 'q"u,o\nte', None, "2021-01-31")]


def as_jsonl(path: Path) -> Path:
    records = [dict(zip(("_id", "lang", "year", "day"), row, strict=True)) for row in ROWS]
    return save_jsonl(path / "a.jsonl", records)


def as_parquet(path: Path) -> Path:
    columns = dict(zip(("id", "lang", "year", "day"), zip(*ROWS, strict=True), strict=True))
    pq.write_table(
        pa.table({name: list(values) for name, values in columns.items()}), path / "a.parquet"
    )
    return path / "a.parquet"


def as_csv(path: Path, suffix: str = "csv", mark: str = ",") -> Path:
    lines = [("_id", "lang", "year", "day"), ROWS[0], ("d1", '"q""u,o\nte"', "", "2021-01-31")]
    text = "\n".join(mark.join(map(str, line)) for line in lines) + "\n"
    (path / f"a.{suffix}").write_text(text, encoding="utf-8-sig")
    return path / f"a.{suffix}"


def as_tsv(path: Path) -> Path:
    return as_csv(path, "tsv", "\t")


@pytest.mark.parametrize("write", [as_jsonl, as_parquet, as_csv, as_tsv])
def test_files_of_all_kinds_are_aligned_to_the_ids(
    write: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Attributes in the order of their file, which is not that of the corpus."""
    table = read_attributes(write(tmp_path), ["d1", "d2", "d3"])
    assert table.column_names == ["lang", "year", "day"]
    assert table["lang"].to_pylist() == ['q"u,o\nte', "de", None]
    assert table["year"].to_pylist() == [None, 2020, None]
    days = [str(day) for day in table["day"].to_pylist()]
    assert days == ["2021-01-31", "2020-01-31", "None"]
    assert "1 of 3 documents have no attributes" in " ".join(capfd.readouterr().err.split())
    attributes = Attributes.from_table(table)
    assert attributes.matching(parse_where("day >= '2020-06-01'")).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", 'id,x\nd1,"1\n1"\n\nd2,2\nd1,3\n', "a.csv:6: duplicate id 'd1'.*a.csv:2"),
        ("a.csv", "id,x\nd1,1\nd9,2\n", r"a.csv:3: unknown id 'd9': it is none of the 2 documents"),
        ("a.csv", "id,x\nd1,1\n,2\n", "a.csv:3: the id is missing"),
        ("a.csv", "id,x\nd1,1,7\n", "a.csv cannot be read.*Expected 2 columns"),
        ("a.csv", "key,x\nd1,1\n", "needs a column _id or id.*key, x"),
        ("a.csv", "id,x,x\nd1,1,1\n", "a.csv:1: duplicate column 'x'"),
        ("a.csv", "", "needs a column _id or id"),
        (
            "a.jsonl",
            '{"_id": "d1", "x": 1}\n\n{"_id": "d1", "x": 2}\n',
            "a.jsonl:3: duplicate id 'd1'",
        ),
        ("a.jsonl", '{"_id": "d9", "x": 1}\n', "a.jsonl:1: unknown id 'd9'"),
        ("a.jsonl", '{"_id": "d1", "x": 1}\n{"_id": "d2", "x": "1"}\n', "a.jsonl:2 holds a string"),
        ("a.jsonl", '{"x": 1}\n', "a.jsonl:1: expected an object with an _id"),
        ("a.jsonl", '{"_id": "d1"}\n', "a.jsonl has no column beside the ids"),
        ("a.csv", "id\nd1\n", "a.csv has no column beside the ids"),
        ("a.parquet", "no", "a.parquet cannot be read as Parquet"),
        ("a.xlsx", "no", "attributes are read from .jsonl"),
    ],
)
def test_mistakes_in_a_file_are_named_by_line(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    """Attributes of another corpus, or two of one document, of which the last holds."""
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_attributes(tmp_path / name, ["d1", "d2"])
    with pytest.raises(DataError, match="no file of attributes"):
        read_attributes(tmp_path / "none.csv", [])


def test_ids_of_a_table_must_be_strings(tmp_path: Path) -> None:
    """Arrow's own error, which names neither the file nor the column."""
    for ids in ([["d1"]], [b"\xff"]):
        pq.write_table(pa.table({"_id": ids, "x": [1]}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"a.parquet: column _id must hold ids"):
            read_attributes(tmp_path / "a.parquet", ["d1"])


@pytest.mark.parametrize("column", ["_id", "x"])
def test_strings_of_a_table_must_be_utf_8(tmp_path: Path, column: str) -> None:
    """A UnicodeDecodeError, of the ids at once or of a filter's column much later."""
    columns = {"_id": pa.array(["d1"]), "x": pa.array(["y"])}
    columns[column] = pa.array([b"\xff"]).view(pa.string())
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet cannot be read .*UTF"):
        read_attributes(tmp_path / "a.parquet", ["d1"])


def test_a_column_of_numbers_that_has_become_strings_is_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One `n/a` among the years, found out when `year >= 2020` is refused after the embedding."""
    (tmp_path / "a.csv").write_text("id,year,code\n1,2019,a\n2,n/a,b\n3,2021,3\n4,,d\n")
    read_attributes(tmp_path / "a.csv", ["1", "2", "3", "4"])
    messages = " ".join(capfd.readouterr().err.split())
    assert "attribute year holds strings: 1 of 3 values is not a number" in messages
    assert "'n/a'" in messages
    assert "a.csv:3" in messages
    assert "code" not in messages


def test_cells_of_a_table_keep_what_they_say(tmp_path: Path) -> None:
    """Namibia's NA that is read as missing, and a time of day that no filter can be asked for."""
    (tmp_path / "a.csv").write_text(
        'id,land,at,none,day\n01,NA,12:30,"",2020-01-31\n2,DE,13:00,x,\n'
    )
    table = read_attributes(tmp_path / "a.csv", ["01", "2"])
    assert table.to_pydict() == {
        "land": ["NA", "DE"],
        "at": ["12:30:00", "13:00:00"],
        "none": ["", "x"],
        "day": [date(2020, 1, 31), None],
    }


@pytest.mark.realdata
def test_a_real_corpus_without_fields_says_so(shared_data: Path) -> None:
    """An empty table that is taken for attributes."""
    collection = load_collection(f"beir:{shared_data / 'cranfield'}")
    with pytest.raises(DataError, match="no field beside title and text"):
        collection.docs.attributes()


@pytest.mark.slow
def test_the_built_in_collection_can_be_filtered() -> None:
    """A document whose attribute names another package than its id."""
    docs = load_collection("builtin:pydocs").docs
    attributes = Attributes.from_table(docs.attributes(["package", "module"]))
    fits = attributes.matching(parse_where("package = 'numpy'"))
    assert fits.tolist() == [id.partition(":")[0].split(".")[0] == "numpy" for id in docs.ids()]
    assert 0 < fits.sum() < len(docs)
