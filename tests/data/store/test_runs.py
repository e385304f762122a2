"""Runs: one table, one tie rule, and every format there and back."""

import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.qrels import read_qrels
from retrodistill.data.store.formats import read_scores
from retrodistill.data.store.runs import Run
from retrodistill.data.store.triples import (
    candidates_from_triples,
    collection_from_text_triples,
    is_triples,
    read_id_triples,
    text_triples,
)

ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
blanks = " \t\n\r\f\v\ufeff"  # other spaces may stand in an id of a TREC file
words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters=blanks), min_size=1)
scores = st.floats(width=32, allow_nan=False, allow_infinity=False)


def lists(keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, dict[str, float]]]:
    return st.dictionaries(keys, st.dictionaries(keys, scores, min_size=1), min_size=1)


relaxed = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@relaxed
@given(lists(words))
def test_a_trec_file_gives_back_the_same_run(
    tmp_path: Path, table: dict[str, dict[str, float]]
) -> None:
    """Scores rounded to five digits, so that a reread teacher has ties that it did not have."""
    run = Run.from_dict(table)
    run.to_trec(tmp_path / "run.trec")
    assert Run.read(tmp_path / "run.trec").table.equals(run.table)


@relaxed
@given(lists(ids))
def test_jsonl_parquet_and_folders_give_back_the_same_run(
    tmp_path: Path, table: dict[str, dict[str, float]]
) -> None:
    """Ids with spaces or quotes that shift every later column."""
    run = Run.from_dict(table)
    run.to_jsonl(tmp_path / "run.jsonl")
    run.to_parquet(tmp_path / "run.parquet")
    run.write(tmp_path / "folder", overwrite=True)
    for name in ("run.jsonl", "run.parquet", "folder"):
        reread = Run.read(tmp_path / name)
        assert reread.table.equals(run.table)
        assert reread.fingerprint == run.fingerprint


def test_the_tie_rule_by_hand() -> None:
    """Equal scores in the order in which they happened to be found."""
    run = Run.from_columns(["q2", "q1", "q1", "q1"], ["x", "a", "c", "b"], [0.0, 1.0, 1.0, 2.0])
    assert run.query_ids == ["q2", "q1"]
    assert [docs for _, docs, _ in run.lists()] == [["x"], ["b", "c", "a"]]
    assert [docs for _, docs, _ in run.top(2).lists()] == [["x"], ["b", "c"]]
    assert run.select(["q1"]).query_ids == ["q1"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["q", "q"], ["a", "a"], [1.0, 2.0]), "row 2"),
        ((["q"], ["a"], [np.nan]), "row 1"),
        ((["q"], ["a"], [np.inf]), "row 1"),
        ((["q"], [""], [1.0]), "doc_id is empty"),
        ((["q"], ["a", "b"], [1.0]), "2 document ids"),
    ],
)
def test_rows_that_cannot_be_are_refused(columns: tuple[list, list, list], message: str) -> None:
    """NaN, which sorts anywhere, or a pair with two scores, of which one wins by chance."""
    with pytest.raises(DataError, match=message):
        Run.from_columns(*columns)


def _line(score: str) -> str:
    return f'{{"query_id": "q", "doc_id": "a", "score": {score}}}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.trec", "q Q0 a 1 2.0 x\nq Q0 b 2\n", r"run.trec:2"),
        ("run.trec", "q Q0 a 1 2.0 x\nq Q0 a 2 1.0 x\n", r"run.trec:2"),
        ("run.trec", "q Q0 a 1 nan x\n", r"run.trec:1"),
        ("run.trec", "q Q0 a 1 high x\n", r"run.trec:1"),
        ("run.trec", "q Q0 a 1 2.0 x\n\nq Q0 b 1 1e39 x\n", r"run.trec:3: score is inf"),
        ("run.trec.gz", "not gzipped", r"cannot read .*run.trec.gz"),
        ("run.jsonl", '{"query_id": "q", "doc_id": null, "score": 1}\n', r"jsonl:1: doc_id"),
        ("run.jsonl", '{"query_id": "q", "doc_id": "a", "score": 1}\n{"query_id"\n', r"jsonl:2"),
        ("run.jsonl", '{"query_id": "q", "doc_id": "a"}\n', r"jsonl:1"),
        ("run.parquet", "not parquet", r"run.parquet"),
        ("run.jsonl", "[" * 5000, r"run.jsonl:1"),
        ("run.jsonl", _line("1" * 400), r"run.jsonl:1: score is inf"),
        ("run.jsonl", _line("1" * 5000), r"run.jsonl:1"),
    ],
)
def test_malformed_files_are_refused_by_line(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    """Half of a run, read as a run."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        Run.read(tmp_path / name)


SECOND = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "column",
    [
        {"score": pa.array([True])},
        {"score": pa.array([SECOND])},
        {"score": pa.array([timedelta(seconds=1)])},
        {"score": pa.array([Decimal("1.5")])},
        {"score": pa.array(["1.5"])},
        {"score": pa.array([[1.5]])},
        {"doc_id": pa.array([timedelta(seconds=1)])},
        {"doc_id": pa.array([Decimal("1.5")])},
        {"doc_id": pa.array([1.5])},
        {"query_id": pa.array([SECOND])},
        {"query_id": pa.array([True])},
    ],
    ids=lambda column: " ".join(f"{name} {values.type}" for name, values in column.items()),
)
def test_columns_of_other_types_are_refused(column: dict[str, pa.Array], tmp_path: Path) -> None:
    """A column of flags or dates beside the right one, which becomes 0 and 1 or microseconds."""
    columns = {"query_id": pa.array(["q"]), "doc_id": pa.array(["a"]), "score": pa.array([1.0])}
    pq.write_table(pa.table(columns | column), tmp_path / "run.parquet")
    with pytest.raises(DataError, match=r"run\.parquet: row 1"):
        Run.read(tmp_path / "run.parquet")


@pytest.mark.parametrize("scores", [[True], ["1.5"], [10**400], [b"x"], [1j]])
def test_values_of_other_types_are_refused(scores: list[Any]) -> None:
    """A text or a flag that NumPy is glad to make a number of."""
    with pytest.raises(DataError, match="scores must be numbers"):
        Run.from_columns(["q"], ["a"], scores)


def test_usual_columns_are_taken(tmp_path: Path) -> None:
    """Other tools' whole-number ids and scores, half precision, or repeated strings, refused."""
    columns = {
        "query_id": pa.array(["q", "q"]).dictionary_encode(),
        "doc_id": pa.array([1, 2], pa.uint32()),
        "score": pa.array(np.array([1.5, 2], np.float16)),
    }
    for change in (
        {},
        {"score": pa.array([1, 2])},
        {"doc_id": pa.array(["1", "2"], "large_string")},
    ):
        pq.write_table(pa.table(columns | change), tmp_path / "run.parquet")
        assert list(Run.read(tmp_path / "run.parquet").to_dict()["q"]) == ["2", "1"]
    assert len(Run.from_columns([], [], [])) == 0


@pytest.mark.parametrize(("name", "format"), [("a.trec", "trec"), ("a.jsonl", "jsonl")])
def test_an_import_of_nothing_is_refused(name: str, format: str, tmp_path: Path) -> None:
    """An empty download that becomes an empty store, with success."""
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"{name} holds no scores"):
        read_scores(tmp_path / name, format)


def test_mistakes_with_runs_are_explained(tmp_path: Path) -> None:
    """A run that was changed by hand, and is still used under its old fingerprint."""
    run = Run.from_dict({"q": {"a b": 1.0}})
    with pytest.raises(DataError, match="'a b' holds a blank"):
        run.to_trec(tmp_path / "run.trec")
    with pytest.raises(DataError, match="holds a blank"):  # reading drops a byte order mark
        Run.from_dict({"\ufeffq": {"a": 1.0}}).to_trec(tmp_path / "run.trec")
    with pytest.raises(DataError, match="there is no run at"):
        Run.read(tmp_path / "none")
    run.write(tmp_path / "run")
    with pytest.raises(ConfigError, match="exists already"):
        run.write(tmp_path / "run")
    table = pa.table({"query_id": ["q"], "doc_id": ["z"], "score": pa.array([1.0], pa.float32())})
    pq.write_table(table, tmp_path / "run" / "run.parquet")
    with pytest.raises(DataError, match="does not match its manifest"):
        Run.read(tmp_path / "run")


def test_id_triples_are_read_line_by_line(tmp_path: Path) -> None:
    """A file of 40 million lines that is read whole before the first line is looked at."""
    path = tmp_path / "triples.tsv"
    path.write_text("q\ta\tb\nq\ta\tc\nbroken\n")
    stream = read_id_triples(path)
    assert next(stream) == ("q", "a", "b")
    assert next(stream) == ("q", "a", "c")
    with pytest.raises(DataError, match=r"triples.tsv:3"):
        next(stream)
    path.write_text("q\ta\tb\nq\ta\tc\np\tb\ta\n")
    assert is_triples(path)
    pairs = candidates_from_triples(path).to_dict()
    assert {query: set(docs) for query, docs in pairs.items()} == {
        "q": {"a", "b", "c"},
        "p": {"a", "b"},
    }


def test_memory_does_not_grow_with_the_texts_of_triples(tmp_path: Path) -> None:
    """A file of many gigabytes whose lines, or whose texts, are all kept."""
    peaks: dict[int, list[int]] = {}
    for width in (10, 1000, 10, 1000):  # the first round warms up
        path = tmp_path / f"{width}.tsv"
        with path.open("w") as stream:
            stream.writelines(f"query {n}\t{n} {'x' * width}\tother\n" for n in range(3000))
        tracemalloc.start()
        try:
            assert sum(1 for _ in text_triples(path)) == 3000
            peaks[width] = [tracemalloc.get_traced_memory()[1]]
            tracemalloc.reset_peak()
            collection_from_text_triples(path, tmp_path / f"out {width}", overwrite=True)
            peaks[width].append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    grown = [long - short for short, long in zip(peaks[10], peaks[1000], strict=True)]
    assert max(grown) < 1e5 < path.stat().st_size / 10, (peaks, grown)


def test_text_triples_become_a_collection(tmp_path: Path) -> None:
    """A passage of ten lines that becomes ten documents."""
    path = tmp_path / "triples.tsv"
    path.write_text(
        "what is x\tx is y\tz is w\nwhat is x\tx is y\tother\nwhat is z\tz is w\tother\n"
    )
    candidates = Run.read(collection_from_text_triples(path, tmp_path / "out"))
    corpus = (tmp_path / "out" / "corpus.jsonl").read_text(encoding="utf-8")
    docs = [json.loads(line) for line in corpus.splitlines()]
    assert {doc["text"] for doc in docs} == {"x is y", "z is w", "other"}
    assert len(docs) == 3
    assert len(candidates) == 5
    assert len(read_qrels(tmp_path / "out" / "qrels" / "train.tsv")) == 2


def test_whole_grades_may_be_written_with_a_point(tmp_path: Path) -> None:
    """Judgements that pandas wrote, refused for the form of their numbers."""
    (tmp_path / "qrels").write_text("q 0 a 1.0\nq 0 b 0\nq 0 c 2e0\n")
    assert read_qrels(tmp_path / "qrels") == {"q": {"a": 1, "b": 0, "c": 2}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q 0 a 0.5\n", "whole number, not '0.5'"),
        ("q 0 a nan\n", "whole number"),
        ("q 0 a inf\n", "whole number"),
        ("q 0 a 1\nq 0 b\n", ":2"),
        ("q 0 a 1\nq 0 a 2\n", "grade 2, but an earlier line says 1"),
        ("q 0 a high\n", "whole number"),
        ("", "no judgement"),
    ],
)
def test_malformed_judgements_are_refused(content: str, message: str, tmp_path: Path) -> None:
    """A truncated qrels file that makes every system look better."""
    (tmp_path / "qrels").write_text(content)
    with pytest.raises(DataError, match=message):
        read_qrels(tmp_path / "qrels")


def test_both_forms_of_judgements_are_read(tmp_path: Path) -> None:
    """The column names of a BEIR file, read as a judgement."""
    (tmp_path / "trec").write_text("q 0 a 2\nq 0 b -1\n")
    (tmp_path / "beir.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t2\nq\tb\t-1\n")
    expected = {"q": {"a": 2, "b": -1}}
    assert read_qrels(tmp_path / "trec") == read_qrels(tmp_path / "beir.tsv") == expected


def test_a_line_of_another_width_is_no_judgement(tmp_path: Path) -> None:
    """A line cut off in the middle, `q 0 12` of `q 0 12 1`: document 0 with the grade 12."""
    (tmp_path / "qrels").write_text("q 0 11 1\nq 0 12\n")
    with pytest.raises(DataError, match=r"qrels:2: a line must be `query 0 document grade`"):
        read_qrels(tmp_path / "qrels")
