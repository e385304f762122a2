"""Common score formats: files as other projects write them, and what must not be read."""

import gzip
import json
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import hash64
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.formats import guess_format, read_scores
from retrodistill.data.store.formats.texts import TextIds
from retrodistill.data.store.runs import Run

Table = dict[str, dict[str, float]]

DOCS = {
    "d1": ("Sun", "The sun is a star."),
    "d2": ("", "Moons orbit planets."),
    "d3": ("", "A comet has a tail."),
    "d4": ("", "Moons orbit planets."),
}
QUERIES = {"q1": "what is the sun", "q2": "what orbits planets"}


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Four documents, of which d2 and d4 have the same text, and two queries."""
    folder = tmp_path_factory.mktemp("sky")
    docs = [{"_id": id, "title": title, "text": text} for id, (title, text) in DOCS.items()]
    queries = [{"_id": id, "text": text} for id, text in QUERIES.items()]
    for name, rows in (("corpus", docs), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return load_collection(f"beir:{folder}")


MARGIN_MSE = (
    "9.203125\t-4.5\t1185869\t0\t2942565\n"
    "9.203125\t-10.75\t1185869\t0\t7\r\n"
    "3.5\t4.25\t1185868\t16\t0\n"
)
PYLATE = (
    '{"query_id": 121352, "document_ids": [2259784, 4923159], "scores": [0.25, 0.75]}\n'
    '{"query_id": "x", "document_ids": "[\'a b\', \'c\']", "scores": "[1.0, -2.5e-3]"}\n'
)
COLBERT = (
    "[1047045, [3660416, 9.5], [7000000, 1], [12, -0.125]]\n"
    '["a/b", ["p 1", 2.0]]\n'
    "[1047045, [13, 3.5]]\n"
)
FLAG = json.dumps(
    {
        "query": "what is the sun",
        "pos": ["Sun The sun is a star."],
        "neg": ["Moons orbit planets.", "A comet has a tail."],
        "pos_scores": [5.5],
        "neg_scores": [-1, 0.25],
        "prompt": "Represent this sentence",
        "type": "normal",
        "pos_id": ["17"],
    }
)
SBERT_LABELS = json.dumps(
    {
        "query": "what is the sun",
        "positive": "The sun is a star.",
        "negative_1": "A comet has a tail.",
        "label": [3.5, -1.0],
    }
)
TEVATRON = json.dumps(
    {
        "query_id": "q9",
        "query": "what is the sun",
        "positive_passages": [{"docid": "5", "title": "", "text": "x", "score": 1}],
        "negative_passages": [{"docid": 6, "title": "t", "text": "y", "score": 0.75}],
    }
)
SBERT_SCORES = '{"1": {"10": 2.5, "11": -3}, \n "2": {}, "3":{"10":1e-3}}'

LITERAL: dict[str, tuple[str, str, Table, dict[str, list[str]]]] = {
    "margin-mse": (
        "scores.tsv",
        MARGIN_MSE,
        {
            "1185869": {"0": 9.203125, "2942565": -4.5, "7": -10.75},
            "1185868": {"16": 3.5, "0": 4.25},
        },
        {"1185869": ["0"], "1185868": ["16"]},
    ),
    "pylate": (
        "train.jsonl",
        PYLATE,
        {"121352": {"2259784": 0.25, "4923159": 0.75}, "x": {"a b": 1.0, "c": -2.5e-3}},
        {},
    ),
    "colbert": (
        "examples.json",
        COLBERT,
        {"1047045": {"3660416": 9.5, "7000000": 1, "12": -0.125, "13": 3.5}, "a/b": {"p 1": 2}},
        {},
    ),
    "flagembedding": (
        "train.jsonl",
        FLAG,
        {"q1": {"d1": 5.5, "d2": -1.0, "d3": 0.25}},
        {"q1": ["d1"]},
    ),
    "sbert-labels": ("train.jsonl", SBERT_LABELS, {"q1": {"d1": 3.5, "d3": -1}}, {"q1": ["d1"]}),
    "tevatron": ("train.jsonl", TEVATRON, {"q9": {"5": 1.0, "6": 0.75}}, {"q9": ["5"]}),
    "tevatron-run": (
        "rank.txt",
        "q1\td1\t12.5\nq1\td2\t-0.5\n",
        {"q1": {"d1": 12.5, "d2": -0.5}},
        {},
    ),
    "sbert-scores": ("ce.json", SBERT_SCORES, {"1": {"10": 2.5, "11": -3}, "3": {"10": 1e-3}}, {}),
    "trec": ("run.trec", "q1 Q0 d1 1 2.5 tag\n", {"q1": {"d1": 2.5}}, {}),
    "jsonl": ("run.jsonl", '{"query_id": "q", "doc_id": "d", "score": 1}\n', {"q": {"d": 1}}, {}),
}


@pytest.mark.parametrize("name", LITERAL)
def test_a_file_of_another_project_is_guessed_and_read(
    name: str, sky: Collection, tmp_path: Path
) -> None:
    """A format that only we ourselves write so."""
    file, content, expected, positives = LITERAL[name]
    (tmp_path / file).write_text(content, encoding="utf-8", newline="")
    with gzip.open(tmp_path / f"{file}.gz", "wt", encoding="utf-8", newline="") as stream:
        stream.write(content)
    for path in (tmp_path / file, tmp_path / f"{file}.gz"):
        assert guess_format(path) == name
        imported = read_scores(path, name, sky)
        assert imported.run.table.equals(Run.from_dict(expected).table)
        assert imported.positives == positives


def test_data_sets_saved_by_their_library_are_read(tmp_path: Path) -> None:
    """The second split of a DatasetDict, skipped."""
    flat = datasets.Dataset.from_dict({"query_id": ["q"], "doc_id": [7], "score": [0.5], "x": [1]})
    rows = {"query_id": [1], "document_ids": [["a", "b"]], "scores": [[1.5, 2.5]]}
    text = {"query_id": [2], "document_ids": ["[3, 4]"], "scores": ["[0.5, 1]"]}
    splits = {"train": datasets.Dataset.from_dict(rows), "dev": datasets.Dataset.from_dict(text)}
    flat.save_to_disk(str(tmp_path / "flat"))
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "dict"))
    expected = {
        "flat": {"q": {"7": 0.5}},
        "dict": {"1": {"b": 2.5, "a": 1.5}, "2": {"4": 1.0, "3": 0.5}},
    }
    for folder, table in expected.items():
        assert guess_format(tmp_path / folder) == "hf"
        assert read_scores(tmp_path / folder, "hf").run.to_dict() == table
    splits["train"].remove_columns("scores").save_to_disk(str(tmp_path / "none"))
    with pytest.raises(DataError, match="must have the columns"):
        read_scores(tmp_path / "none", "hf")
    with pytest.raises(DataError, match="save_to_disk"):
        read_scores(tmp_path, "hf")


def test_parquet_of_other_projects_is_guessed_and_read(sky: Collection, tmp_path: Path) -> None:
    """A Parquet file that is read as lines of text, or whose numbers are taken as names."""
    path = tmp_path / "rows.parquet"
    pylate = {"query_id": [1, 2], "document_ids": [[3], [4, 5]], "scores": [[0.5], [1.0, 2.0]]}
    pq.write_table(pa.table(pylate), path)
    assert guess_format(path) == "pylate"
    assert read_scores(path, "pylate").run.to_dict() == {"1": {"3": 0.5}, "2": {"5": 2.0, "4": 1.0}}
    names = ["query", "positive", "negative_1", "scores"]
    columns = [["what is the sun"], ["The sun is a star."], ["A comet has a tail."], [[3.5, 1.0]]]
    pq.write_table(pa.table(columns, names), path)
    assert guess_format(path) == "sbert-labels"
    assert read_scores(path, "sbert-labels", sky).run.to_dict() == {"q1": {"d1": 3.5, "d3": 1.0}}
    pq.write_table(pa.table({**pylate, "scores": [[0.5], [1.0]]}), path)
    with pytest.raises(DataError, match=r"rows.parquet row 2: 2 documents have 1 scores"):
        read_scores(path, "pylate")
    pq.write_table(pa.table({"query_id": [0.5], "document_ids": [["a"]], "scores": [[1.0]]}), path)
    with pytest.raises(DataError, match=r"row 1: the id of a query must be .* not 0.5"):
        read_scores(path, "pylate")
    with pytest.raises(DataError, match="to end in .parquet"):
        guess_format(path.rename(tmp_path / "rows.pq"))


def flag(**changes: object) -> str:
    return json.dumps({**json.loads(FLAG), **changes})


def labels(**changes: object) -> str:
    return json.dumps({**json.loads(SBERT_LABELS), **changes})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("margin-mse", MARGIN_MSE + "1\t2\tq\ta\n", r":4: a line must be .*expected 5, got 4"),
        ("margin-mse", "1\t2\tq\ta\tb\tc\n", r":1: .*too many values"),
        ("margin-mse", "1\thigh\tq\ta\tb\n", r":1: .*'high'"),
        ("margin-mse", MARGIN_MSE + "\n1\tnan\tq\ta\tb\n", r":5: the score .* not nan"),
        ("margin-mse", "1\t1e39\tq\ta\tb\n", r":1: .*'b' must be a finite number"),
        ("margin-mse", "1\t2\t\ta\tb\n", r":1: the id of a query must be .* not empty"),
        ("margin-mse", "1\t2\tq\ta\t\n", r":1: the id of a document"),
        ("margin-mse", b"1\t2\tq\ta\t\xff\n", r":1: .* is not UTF-8"),
        ("margin-mse", "", "holds no scores"),
        ("tevatron-run", "q\td\t1\nq d 2\n", r":2: a line must be `query document score`"),
        ("tevatron-run", "q\td\tinf\n", r":1: the score .* not inf"),
        ("colbert", '["q", ["d", 1, 2]]\n', r":1: a line must be"),
        ("colbert", '["q", ["d", 1]]\n{"q": 1}\n', r":2: a line must be"),
        ("colbert", '["q", ["d", 1]]\n["q", ["d', r":2: .*it is not JSON"),
        ("colbert", '["q", ["d", true]]\n', r":1: the score .* not True"),
        ("colbert", '["q", [null, 1]]\n', r":1: the id of a document .* not None"),
        ("colbert", '["\\ud800", ["d", 1]]\n', r":1: the id of a query"),
        ("colbert", f'["q", ["d", 1{"0" * 400}]]\n', r":1: the score"),
        ("pylate", '{"query_id": 1, "scores": [1]}\n', r":1: a row must be .* query_id, scores"),
        (
            "pylate",
            '{"query_id": 1, "document_ids": "a", "scores": [1]}',
            "must be a list, not 'a'",
        ),
        ("pylate", '{"query_id": 1, "document_ids": [1, 2], "scores": [1]}', "2 documents have 1"),
        ("sbert-scores", '{"q": {"d": 1}, "q": {"d": 2}}', r"ce:1: query 'q' gives document 'd'"),
        ("sbert-scores", '{"q": {"d": 1, "d": 2}}', r":1: query 'q' gives document 'd'"),
        ("sbert-scores", '{"q":\n {"d": NaN}}', r":1: the score .* not nan"),
        ("sbert-scores", '{"q": {"d": 1},\n "p": 2}', r":2: .* '{' was expected"),
        ("sbert-scores", '{"q": {"d": 1}', r":1: .* '}' was expected"),
        ("sbert-scores", '{"q": {"d": ', r":1: the file must be"),
        ("sbert-scores", '{"q": {"d": {"e": 1}}}', r":1: the score .* must be a finite number"),
        ("sbert-scores", b'{"q": {"\xff": 1}}', "it is not UTF-8"),
        ("flagembedding", flag(pos_scores=[]), r":1: 1 pos and 2 neg have 0 pos_scores"),
        ("flagembedding", flag(neg_scores=None), r":1: neg_scores must be a list, not None"),
        ("flagembedding", '{"query": "x", "pos": [], "neg": []}', r":1: a row must be"),
        ("flagembedding", flag(query="what?"), r":1: the queries of .* hold no text 'what\?'"),
        ("flagembedding", FLAG + "\n" + flag(pos=["A planet."]), r":2: the documents of .*'A plan"),
        ("flagembedding", flag(pos=[17]), r":1: the text of a document must be a string, not 17"),
        ("sbert-labels", labels(label=4.5), r":1: label 4.5 is a margin"),
        ("sbert-labels", labels(label=[4.5]), r":1: label \[4.5\] is a margin"),
        ("sbert-labels", labels(label=[4.5, 1, 2]), r":1: 2 documents have 3 scores"),
        ("sbert-labels", '{"query": "x", "positive": "y"}', r":1: a row needs a column label"),
        ("tevatron", TEVATRON.replace('"score": 1', '"rank": 1'), r":1: each passage must have"),
        ("tevatron", '{"query": "x", "positive_passages": []}', r":1: a row must be"),
        ("trec", "q Q0 d 1 nan x\n", r":1: score is nan"),
    ],
)
def test_malformed_files_are_refused_by_line(
    name: str, content: str | bytes, message: str, sky: Collection, tmp_path: Path
) -> None:
    """A teacher's scores that are half there, shifted by a column, or not numbers at all."""
    path = tmp_path / "ce"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_scores(path, name, sky)


def test_damaged_files_and_missing_ones_are_explained(tmp_path: Path) -> None:
    """The traceback of a library."""
    (tmp_path / "cut.tsv.gz").write_bytes(gzip.compress(MARGIN_MSE.encode())[:-12])
    (tmp_path / "ce.json.gz").write_bytes(gzip.compress(SBERT_SCORES.encode())[:-12])
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    for file, name in (
        ("cut.tsv.gz", "margin-mse"),
        ("none.tsv", "margin-mse"),
        ("ce.json.gz", "sbert-scores"),
        ("x.parquet", "pylate"),
    ):
        with pytest.raises(DataError, match=f"(cannot read .*{file}|{file} cannot be read)"):
            read_scores(tmp_path / file, name)
    with pytest.raises(ConfigError, match="Did you mean 'colbert'"):
        read_scores(tmp_path / "none", "colber")
    with pytest.raises(ConfigError, match="must end in .jsonl"):
        read_scores(tmp_path / "x.parquet", "jsonl")


def test_a_pair_that_stands_twice_is_one_row_if_its_scores_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two scores, chosen by their place in the file."""
    path = tmp_path / "scores.tsv"
    path.write_text("1\t2\tq\ta\tb\n1.00000001\t3\tq\ta\tc\n2\t1\tq\tb\ta\n")
    content = read_scores(path, "margin-mse")
    assert content.run.to_dict() == {"q": {"c": 3.0, "b": 2.0, "a": 1.0}}
    assert content.positives == {"q": ["a", "b"]}
    path.write_text("1\t2\tq\ta\tb\n\n1\t3\tq\ta\tc\n1.5\t3\tq\ta\tc\n4\t3\tq\ta\tc\n")
    message = r"tsv:4: query 'q' gives document 'a' score 1.5, but 1 before \(.*tsv:1\)"
    with pytest.raises(DataError, match=message):
        read_scores(path, "margin-mse")
    mean = read_scores(path, "margin-mse", on_conflict="mean").run.to_dict()
    assert mean == {"q": {"c": 3.0, "b": 2.0, "a": 1.875}}
    assert "1 pairs have several scores that differ" in capsys.readouterr().err


def test_pickles_are_refused_and_the_advice_works(tmp_path: Path) -> None:
    """Code that a downloaded file of scores runs; or advice that does not convert it."""
    scores = {1: {10: np.float32(2.5), 11: -3.0}}
    path = tmp_path / "ce-scores.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(scores)))
    (tmp_path / "renamed.json").write_bytes(pickle.dumps(scores))
    with pytest.raises(DataError, match="is a pickle"):
        guess_format(tmp_path / "renamed.json")
    for file in (tmp_path / "renamed.json", path):
        with pytest.raises(DataError, match="runs the code that it holds") as refusal:
            read_scores(file, "sbert-scores")
        command = shlex.split(str(refusal.value).splitlines()[1])
        subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
        expected = {"1": {"10": 2.5, "11": -3.0}}
        assert read_scores(tmp_path / "scores.json", "sbert-scores").run.to_dict() == expected


def test_texts_are_found_whatever_their_hashes(sky: Collection) -> None:
    """Two texts whose hashes collide, taken for one."""
    for hasher in (hash64, lambda texts: np.zeros(len(texts), np.uint64)):
        ids = TextIds(sky.docs, hasher=hasher)
        texts_expected = ["The sun is a star.", "A comet has a tail.", "Sun The sun is a star."]
        assert ids.find(texts_expected, str) == ["d1", "d3", "d1"]
        assert not ids.shared
        assert ids.find(["Moons orbit planets."] * 2, str) == ["d2", "d2"]
        assert len(ids.shared) == 1
        with pytest.raises(DataError, match="1: the documents of .* hold no text 'Sun'"):
            ids.find([texts_expected[0], "Sun"], str)


def test_texts_of_several_documents_are_told_once(
    sky: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores that move to another document without a word."""
    (tmp_path / "a.jsonl").write_text(FLAG + "\n" + flag(query="what orbits planets"))
    capsys.readouterr()
    read_scores(tmp_path / "a.jsonl", "flagembedding", sky)
    assert capsys.readouterr().err.count("1 texts of") == 1
    with pytest.raises(ConfigError, match="a collection is needed"):
        read_scores(tmp_path / "a.jsonl", "flagembedding")


@pytest.mark.parametrize(
    ("content", "candidates"),
    [
        ("1\t2\t3\n", "tevatron-run"),  # whole numbers: triples of ids too
        ("a b c d\n", "trec"),
        ("", "margin-mse"),
        ('{"query": "x", "label": [1]}\n', "sbert-labels"),
        ('[1, "x"]\n', "colbert"),
    ],
)
def test_a_format_that_is_not_certain_is_not_guessed(
    content: str, candidates: str, tmp_path: Path
) -> None:
    """Triples of ids, read as a run with ids for scores."""
    (tmp_path / "file").write_text(content)
    with pytest.raises(DataError, match=f"not certain.*{candidates}"):
        guess_format(tmp_path / "file")
    Run.from_dict({"q": {"d": 1.0}}).write(tmp_path / "run")
    with pytest.raises(DataError, match="needs no import"):
        guess_format(tmp_path / "run")


@pytest.mark.realdata
def test_published_runs_are_read(shared_data: Path) -> None:
    """A real file with a form that no test of ours has."""
    paths = sorted((shared_data / "oracle" / "runs").glob("*/*.trec"))
    assert paths
    for path in paths[:2]:
        assert guess_format(path) == "trec"
        run = read_scores(path, "trec").run
        assert len(run) == path.read_bytes().count(b"\n")
