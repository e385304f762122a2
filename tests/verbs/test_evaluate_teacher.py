"""The evaluate command with a teacher beside the runs, as it is typed."""

import json
from pathlib import Path

import pytest

from retrodistill.evaluate import main

WORDS = ("--qrels", "qrels.txt", "--run", "kl.trec", "--metrics", "ndcg@10", "--test", "none")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "qrels.txt").write_text("q1 0 a 1\nq2 0 a 1\n")
    (tmp_path / "kl.trec").write_text(
        "q1 Q0 a 1 3 x\nq1 Q0 b 2 2 x\nq1 Q0 c 3 1 x\nq2 Q0 a 1 1 x\n"
    )
    (tmp_path / "best.trec").write_text("q1 Q0 a 1 9 x\nq1 Q0 c 2 5 x\nq1 Q0 b 3 1 x\n")
    (tmp_path / "other.trec").write_text("z7 Q0 a 1 3.0 x\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_fidelity_stands_beside_effectiveness(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student called the teacher, or a table without its numbers in the JSON."""
    words = [*WORDS, "--run", "best.trec"]
    assert main([*words, "--teacher", "best.trec", "--json", "r.json", "--per-query"]) == 0
    shown = capsys.readouterr().out
    assert "fidelity to best.trec" in shown
    report = json.loads((files / "r.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["systems"]] == list(report["fidelity"]) == ["kl", "best"]
    kl, best = report["fidelity"]["kl"], report["fidelity"]["best"]
    assert kl["per_query"]["tau"] == {"q1": pytest.approx(1 / 3)}
    assert kl["skipped"] == {"not in the teacher's run": ["q2"]}
    assert best["measures"]["tau"] == pytest.approx(1)
    (line,) = [line for line in shown.splitlines() if line.startswith("│ kl ") and "0.3333" in line]
    assert "100.0%" in line
    assert main([*words, "--json", "r.json"]) == 0
    report = json.loads((files / "r.json").read_text(encoding="utf-8"))
    assert "fidelity" not in report
    assert "fidelity" not in capsys.readouterr().out


def test_a_teacher_of_other_queries_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train scores given for test runs: a table of nothing."""
    assert main([*WORDS, "--teacher", "other.trec"]) == 2
    assert "share no query" in capsys.readouterr().err
