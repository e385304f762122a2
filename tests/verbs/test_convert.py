"""Click logs become judgements."""

from pathlib import Path

import pytest
from fakes.corpus import save_small_collection

from retrodistill import convert
from retrodistill.data.datasets import load_collection
from retrodistill.data.datasets.beir import read_qrels
from retrodistill.data.datasets.queries import query_id


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def converted(tmp_path: Path, line: str) -> dict[str, dict[str, int]]:
    words = ["--out", str(tmp_path / "out.tsv"), "--overwrite", *line.split()]
    assert convert.main(words) == 0
    return read_qrels(tmp_path / "out.tsv")


def test_clicks_are_added_up_and_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One grade for a document that one person clicked and one that hundreds did."""
    log = write(
        tmp_path / "clicks.csv",
        "query,doc_id,clicks\nred apples,d1,2\nred  apples,d1,1\nred apples,d2,1\npears,d2,0\n",
    )
    apples = query_id("red apples")
    assert converted(tmp_path, f"--clicks {log}") == {apples: {"d1": 1, "d2": 1}}
    said = capsys.readouterr().err
    assert "4 rows, 2 pairs" in said
    assert "1 rows without a click skipped" in said
    graded = f"--clicks {log} --grades clicks --min-clicks 2"
    assert converted(tmp_path, graded) == {apples: {"d1": 3}}
    assert "1 pairs with fewer clicks skipped" in capsys.readouterr().err


def test_a_log_is_of_its_collection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Judgements of queries and documents that nobody has, which count as not found."""
    data = save_small_collection(tmp_path / "data", docs=20, train=4, test=2)
    text = load_collection(f"beir:{data}").queries.get("q3").text
    log = write(
        tmp_path / "clicks.tsv", f"q1\td1\n{text}\td3\n{text}\tnowhere\nred apples\td1\nnew\td2\n"
    )
    qrels = converted(tmp_path, f"--clicks {log} --data beir:{data}")
    assert qrels == {"q1": {"d1": 1}, "q3": {"d3": 1}}
    said = capsys.readouterr().err
    assert "2 rows of unknown queries skipped ('red apples', 'new', ...)" in said
    assert "1 rows of unknown documents skipped ('nowhere', ...)" in said
    queries = write(tmp_path / "log.txt", "red apples\n")
    both = f"--clicks {log} --data beir:{data} --queries {queries}"
    assert converted(tmp_path, both)[query_id("red apples")] == {"d1": 1}
    spec = f"beir:{data},queries={queries},qrels={tmp_path / 'out.tsv'}"
    assert set(load_collection(spec).query_ids("out")) == {"q1", "q3", query_id("red apples")}


def test_a_clicked_document_may_be_cut_into_passages(tmp_path: Path) -> None:
    """Every click on a long document thrown away, for only its passages have ids."""
    (tmp_path / "docs").mkdir()
    write(tmp_path / "docs" / "a.txt", "A sentence of words. " * 30)
    log = write(tmp_path / "c.jsonl", '{"q": "words", "url": "a.txt"}\n{"q": "x", "url": "b"}\n')
    queries = write(tmp_path / "log.txt", "words\nx\n")
    spec = f"--data docs:{tmp_path / 'docs'},tokens=20 --queries {queries}"
    assert converted(tmp_path, f"--clicks {log} {spec}") == {query_id("words"): {"a.txt": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,doc,clicks\na,d,many\n", "c.csv:2: the clicks must be a whole number"),
        ("query,doc,clicks\na,d,-1\n", "at least 0"),
        ("query,doc,clicks\na,,1\n", "doc must be a word"),
        ("what,doc\na,d\n", "no column that looks like the query"),
        ("query,what\na,d\n", "no column that looks like the document"),
        ("query,doc,clicks\na,d,0\n", "gives no judgement"),
        ("query,doc\n", "gives no judgement"),
    ],
)
def test_malformed_logs_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    """A traceback, or an empty split."""
    log = write(tmp_path / "c.csv", text)
    assert convert.main(["--clicks", str(log), "--out", str(tmp_path / "out.tsv")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.tsv").exists()
