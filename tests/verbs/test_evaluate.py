"""The evaluate command, as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from retrodistill.evaluate import names


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "qrels.txt").write_text("q1 0 a 2\nq1 0 b 0\nq2 0 a 1\n")
    (tmp_path / "one.trec").write_text("q1 Q0 a 1 3.0 x\nq1 Q0 b 2 1.0 x\n")
    (tmp_path / "two.trec").write_text("q1 Q0 b 1 3.0 x\nq2 Q0 a 1 1.0 x\n")
    (tmp_path / "other.trec").write_text("z7 Q0 a 1 3.0 x\n")
    return tmp_path


def evaluate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "retrodistill.evaluate", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_json_has_the_promised_form(files: Path) -> None:
    """A report that scripts of users cannot read any more."""
    done = evaluate(
        files,
        "--qrels",
        "qrels.txt",
        "--run",
        "one.trec",
        "--run",
        "two.trec",
        "--metrics",
        "map@100(rel=2),ndcg@10",
        "--per-query",
        "--json",
        "r.json",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((files / "r.json").read_text())
    assert list(report) == ["systems", "tests"]
    one, two = report["systems"]
    assert one == {
        "name": "one",
        "metrics": {"map@100(rel=2)": 0.5, "ndcg@10": 0.5},
        "per_query": {"map@100(rel=2)": {"q1": 1.0, "q2": 0.0}, "ndcg@10": {"q1": 1.0, "q2": 0.0}},
    }
    assert two["name"] == "two"
    assert {row["metric"] for row in report["tests"]} == {"map@100(rel=2)", "ndcg@10"}
    assert "one" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--qrels", "qrels.txt", "--run", "none.trec"), "there is no run at none.trec"),
        (("--qrels", "none.txt", "--run", "one.trec"), "none.txt"),
        (("--run", "one.trec"), "either --data"),
        (("--qrels", "qrels.txt", "--run", "one.trec", "--metrics", "ndgc"), "Did you mean"),
        (("--qrels", "qrels.txt", "--run", "qrels.txt"), "qrels.txt:1"),
        (("--qrels", "qrels.txt", "--run", "other.trec"), "it has ids like ['z7'], they have ids"),
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(
    words: tuple[str, ...], message: str, files: Path
) -> None:
    """A traceback where a sentence would do."""
    done = evaluate(files, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    """Two systems called `run` of which only one is reported."""
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "x.trec").write_text("")
        (tmp_path / part / "x.jsonl").write_text("")
    found = names([tmp_path / "a" / "x.trec", tmp_path / "b" / "x.trec"])
    assert list(found) == ["a/x", "b/x"]
    found = names([tmp_path / "a" / "x.trec", tmp_path / "a" / "x.jsonl"])
    assert list(found) == ["x.trec", "x.jsonl"]
    assert list(names([tmp_path / "a"])) == ["a"]
