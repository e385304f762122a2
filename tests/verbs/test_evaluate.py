"""The evaluate command, as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from retrodistill.evaluate import main
from retrodistill.stages.reporting.results import system_names


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
    assert list(report) == ["systems", "tests", "settings", "subsets", "training", "warnings"]
    one, two = report["systems"]
    assert one == {
        "name": "one",
        "metrics": {"map@100(rel=2)": 0.5, "ndcg@10": 0.5},
        "intervals": {"map@100(rel=2)": [0.0, 1.0], "ndcg@10": [0.0, 1.0]},
        "judged": {"judged@10": 1.0, "judged@100": 1.0},
        "identical_ids": 0,
        "per_query": {"map@100(rel=2)": {"q1": 1.0, "q2": 0.0}, "ndcg@10": {"q1": 1.0, "q2": 0.0}},
    }
    assert two["name"] == "two"
    assert {row["metric"] for row in report["tests"]} == {"map@100(rel=2)", "ndcg@10"}
    assert "one" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--qrels", "qrels.txt", "--run", "none.trec"),
            "--run none.trec does not exist. Did you mean 'one.trec'?",
        ),
        (("--qrels", "none.txt", "--run", "one.trec"), "none.txt"),
        (("--run", "one.trec"), "either --data"),
        (("--qrels", "qrels.txt", "--run", "one.trec", "--metrics", "ndgc"), "Did you mean"),
        (("--qrels", "qrels.txt", "--run", "qrels.txt"), "qrels.txt:1"),
        (("--qrels", "qrels.txt"), "needs --run"),
        (("--qrels", "qrels.txt", "--run", "one.trec", "--tie", "-1"), "--tie must be at least 0"),
        (("--qrels", "qrels.txt", "--run", "one.trec", "--baseline", "on"), "Did you mean 'one'?"),
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


def run(capsys: pytest.CaptureFixture[str], words: str) -> tuple[str, str]:
    """Return what the command says, in this process."""
    assert main(words.split()) == 0
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_the_tables_show_intervals_counts_and_the_baseline(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of means that hides how uncertain they are, and how much of a list is judged."""
    monkeypatch.chdir(files)
    words = "--qrels qrels.txt --run one.trec --run two.trec --metrics mrr@2 --baseline one"
    shown, _ = run(capsys, f"{words} --correction tukey --test fisher")
    cells = [line.strip("│ ").split() for line in shown.replace("│", " ").splitlines()]
    assert ["one", "0.5000", "1.0000"] in cells
    assert ["0.000", "to", "1.000"] in cells
    (row,) = (line for line in cells if line[:3] == ["mrr@2", "two", "one"])
    assert row[3:] == ["+0.0000", "-1.000", "to", "+1.000", "1/0/1", "1.0000", "1.0000"]
    assert "judged@2" in shown
    assert "95% interval" in shown
    assert "Fisher" in shown
    assert "p (Tukey)" in shown


def test_identical_ids_are_told(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers below the published ones, because the corpus holds the queries."""
    monkeypatch.chdir(files)
    (files / "same.trec").write_text("q1 Q0 q1 1 3.0 x\nq1 Q0 a 2 1.0 x\nq2 Q0 a 1 1.0 x\n")
    words = "--qrels qrels.txt --run same.trec --metrics mrr"
    out, err = run(capsys, words)
    assert "0.7500" in out
    assert "same: documents with the id of their query: 1. They count here" in err
    out, err = run(capsys, words + " --ignore-identical-ids")
    assert "1.0000" in out
    assert "They were dropped." in err
    _, err = run(capsys, "--qrels qrels.txt --run one.trec --metrics mrr")
    assert "id of their query" not in err


def test_judged_only_reaches_the_measures(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that does nothing."""
    monkeypatch.chdir(files)
    (files / "new.trec").write_text("q1 Q0 new 1 3.0 x\nq1 Q0 a 2 1.0 x\nq2 Q0 a 1 1.0 x\n")
    words = "--qrels qrels.txt --run new.trec --metrics mrr"
    assert "0.7500" in run(capsys, words)[0]
    assert "1.0000" in run(capsys, words + " --judged-only")[0]


def test_metrics_help_needs_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of metrics that one gets only with a run at hand."""
    shown, _ = run(capsys, "--metrics help")
    assert "rbp@K  (rel, p; Moffat and Zobel 2008" in shown


def test_runs_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    """Two systems called `run` of which only one is reported."""
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "x.trec").write_text("")
        (tmp_path / part / "x.jsonl").write_text("")
    found = system_names([tmp_path / "a" / "x.trec", tmp_path / "b" / "x.trec"])
    assert list(found) == ["a/x", "b/x"]
    found = system_names([tmp_path / "a" / "x.trec", tmp_path / "a" / "x.jsonl"])
    assert list(found) == ["x.trec", "x.jsonl"]
    assert list(system_names([tmp_path / "a"])) == ["a"]
