"""Common score formats: what was written is read back, bit by bit."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.formats import (
    FORMATS,
    gathering,
    guess_format,
    margin_mse,
    read_scores,
    sbert_scores,
    tevatron,
    write_scores,
)
from retrodistill.data.store.runs import Run

scores = st.floats(width=32, allow_nan=False, allow_infinity=False)
ids = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
columns = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\t\r\n\ufeff"),
    min_size=1,
    max_size=6,
)
words = columns.map(lambda text: "x".join(text.split()) or "y")
relaxed = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

BY_IDS = [
    ("jsonl", "run.jsonl"),
    ("parquet", "run.parquet"),
    ("sbert-scores", "ce.json"),
    ("sbert-scores", "ce.json.gz"),
    ("sbert-scores", "ce.jsonl"),
    ("pylate", "kd.jsonl"),
    ("pylate", "kd.parquet"),
    ("colbert", "nway.json"),
]
LABELLED = [
    ("margin-mse", "scores.tsv.gz"),
    ("sbert-labels", "labels.jsonl"),
    ("sbert-labels", "labels.parquet"),
    ("flagembedding", "flag.jsonl"),
    ("flagembedding", "flag.parquet"),
    ("tevatron", "tevatron.jsonl"),
    ("tevatron", "tevatron.parquet"),
]


def runs(
    queries: st.SearchStrategy[str], docs: st.SearchStrategy[str], least: int = 1
) -> st.SearchStrategy[Run]:
    lists = st.dictionaries(docs, scores, min_size=least, max_size=6)
    return st.dictionaries(queries, lists, min_size=1, max_size=5).map(Run.from_dict)


def test_every_format_is_tested_here() -> None:
    """A new format without a round trip."""
    tested = {name for name, _ in BY_IDS + LABELLED}
    assert {*tested, "trec", "tevatron-run", "hf"} == set(FORMATS)


@relaxed
@given(runs(ids, ids))
def test_formats_of_ids_give_back_the_same_run(tmp_path: Path, run: Run) -> None:
    """A score rounded to five digits, or an id with a quote or a line break that ends its line."""
    for name, file in BY_IDS:
        write_scores(tmp_path / file, name, run)
        assert read_scores(tmp_path / file, name).run.table.equals(run.table), file
        assert guess_format(tmp_path / file) == name


@relaxed
@given(runs(columns, columns), runs(words, words))
def test_formats_of_columns_give_back_the_same_run(tmp_path: Path, tabs: Run, blanks: Run) -> None:
    """Ids with blanks or quotes that shift the later columns."""
    for name, run in (("tevatron-run", tabs), ("trec", blanks)):
        write_scores(tmp_path / name, name, run)
        assert read_scores(tmp_path / name, name).run.table.equals(run.table), name


@settings(relaxed, max_examples=5)
@given(runs(ids, ids))
def test_a_saved_data_set_gives_back_the_same_run(
    tmp_path_factory: pytest.TempPathFactory, run: Run
) -> None:
    """Scores that the library has turned into float64, or rows in another order."""
    folder = tmp_path_factory.mktemp("hf") / "data"
    write_scores(folder, "hf", run)
    assert read_scores(folder, "hf").run.table.equals(run.table)


TEXTS = [
    ("", "plain"),
    ("Title", "of a text"),
    ("", 'quo"ted, and\\'),
    ("", "two\nlines\tand a tab"),
    ("Ünï", "𝄞øde  两 "),
    ("", "\u2028separator"),
    ("", " blanks around "),
    ("only a title", ""),
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A collection of odd texts."""
    folder = tmp_path_factory.mktemp("odd")
    docs = [{"_id": f"d {i}", "title": a, "text": b} for i, (a, b) in enumerate(TEXTS)]
    queries = [{"_id": f"q{i}", "text": f"{a} {b}?"} for i, (a, b) in enumerate(TEXTS)]
    for name, rows in (("corpus", docs), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return load_collection(f"beir:{folder}")


some_docs = st.sampled_from([f"d {i}" for i in range(len(TEXTS))])
some_queries = st.sampled_from([f"q{i}" for i in range(len(TEXTS))])


@relaxed
@given(runs(some_queries, some_docs), st.sets(some_docs, min_size=1, max_size=3))
def test_labelled_formats_give_back_what_they_can_hold(
    tmp_path: Path, odd: Collection, run: Run, relevant: set[str]
) -> None:
    """A negative that becomes a positive, or the score of a document beside another's text."""
    positives = {query: [doc for doc in docs if doc in relevant] for query, docs, _ in run.lists()}
    lengths = {query: len(docs) for query, docs, _ in run.lists()}
    held = [query for query, docs in positives.items() if 0 < len(docs) < lengths[query]]
    assume(held)
    for name, file in LABELLED:
        write_scores(tmp_path / file, name, run, relevant=positives, collection=odd)
        imported = read_scores(tmp_path / file, name, odd)
        assert imported.run.table.equals(run.select(held).table), file
        assert {q: set(d) for q, d in imported.positives.items()} == {
            q: set(positives[q]) for q in held
        }
        assert guess_format(tmp_path / file) == name


def test_what_is_left_out_or_repeated_is_told(
    tmp_path: Path, odd: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    """Queries that vanish without a word, or rows too short for the trainer that reads them."""
    table = {
        "q0": {"d 0": 3.0, "d 1": 1.0, "d 2": 2.0},
        "q1": {"d 0": 1.0, "d 1": 0.5},
        "q2": {"d 3": 1.0, "d 4": 2.0},
    }
    relevant = {"q0": ["d 0"], "q1": ["d 1", "d 7"]}
    path = tmp_path / "labels.parquet"
    capsys.readouterr()
    write_scores(path, "sbert-labels", Run.from_dict(table), relevant=relevant, collection=odd)
    told = capsys.readouterr().err
    assert told.count("1 of 3 queries are skipped") == 1
    assert told.count("1 queries have fewer than 2 negatives") == 1
    written = pq.read_table(path)
    assert written.column_names == ["query", "positive", "negative_1", "negative_2", "label"]
    assert written["label"].to_pylist() == [[3.0, 2.0, 1.0], [0.5, 1.0, 1.0]]
    assert written["negative_1"].to_pylist() == ['quo"ted, and\\', "plain"]


lines = st.lists(st.tuples(scores, scores, columns, columns, columns), min_size=1, max_size=20)


@relaxed
@given(lines)
def test_the_fast_reader_of_columns_gives_the_same_rows(
    tmp_path: Path, rows: list[tuple[float, float, str, str, str]]
) -> None:
    """A fast reader that rounds otherwise, trims ids, or loses quotes or the last line."""
    triples, plain = tmp_path / "triples.tsv", tmp_path / "plain.tsv"
    triples.write_text("\n".join("\t".join(map(str, row)) for row in rows), encoding="utf-8")
    plain.write_text("".join(f"{q}\t{d}\t{s!r}\r\n" for s, _, q, d, _ in rows), encoding="utf-8")
    for module, path, fast, slow in (
        (margin_mse, triples, margin_mse.tables, margin_mse.records),
        (tevatron, plain, tevatron.run_tables, tevatron.run_records),
    ):
        expected = [
            (record.query, doc, float(np.float32(score)), position < record.relevant)
            for record in slow(path)
            for position, (doc, score) in enumerate(zip(record.docs, record.scores, strict=True))
        ]
        table = pa.concat_tables(gathering._checked(batch) for batch in fast(path))
        assert list(zip(*table.to_pydict().values(), strict=True)) == expected, module


@relaxed
@given(runs(ids, ids), st.integers(1, 9))
def test_blocks_may_end_anywhere_in_json(tmp_path: Path, run: Run, size: int) -> None:
    """A number or a letter cut in two by the end of a block, and read as two or as none."""
    path = tmp_path / "ce.json"
    write_scores(path, "sbert-scores", run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sbert_scores, "BLOCK", size)
        pretty = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=40)
        for text in (path.read_text(encoding="utf-8"), pretty):
            path.write_text(text, encoding="utf-8")
            assert read_scores(path, "sbert-scores").run.table.equals(run.table)


def test_scores_of_one_line_are_parsed_query_by_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of gigabytes on one line, held whole and again as Python objects."""
    path = tmp_path / "ce.json"
    table = {f"q{i}": {f"document {j}": 0.5 for j in range(50)} for i in range(1000)}
    path.write_text(json.dumps(table))
    monkeypatch.setattr(sbert_scores, "BLOCK", 1 << 12)
    list(sbert_scores.records(path))  # warms up
    tracemalloc.start()
    try:
        assert sum(len(record.docs) for record in sbert_scores.records(path)) == 50_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 10


def test_writing_is_whole_or_not_at_all(odd: Collection, tmp_path: Path) -> None:
    """A file of scores cut off at the first bad id, in the place of a good one."""
    path = tmp_path / "out"
    path.write_text("kept")
    run = Run.from_dict({"q1": {"d 1": 1.0, "d 3": 2.0}, "q2": {"d\t9": 1.0, "d 3": 0.5}})
    relevant = {"q1": ["d 1"], "q2": ["d 3"]}
    with pytest.raises(DataError, match=r"'d\\t9' holds a tab"):
        write_scores(path, "margin-mse", run, relevant=relevant)
    for name in ("flagembedding", "sbert-labels", "tevatron"):
        with pytest.raises(DataError, match="hold no id"):
            write_scores(path, name, run, relevant=relevant, collection=odd)
        with pytest.raises(ConfigError, match="give the collection"):
            write_scores(path, name, run, relevant=relevant)
        with pytest.raises(ConfigError, match="distinguishes relevant documents"):
            write_scores(path, name, run, collection=odd)
        with pytest.raises(DataError, match="none of the 2 queries"):
            write_scores(path, name, run, relevant={"q1": ["d 2"]}, collection=odd)
    assert path.read_text() == "kept"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    (tmp_path / "hf").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        write_scores(tmp_path / "hf", "hf", run)
