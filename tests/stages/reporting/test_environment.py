"""What `retrodistill.doctor` finds, and that it never fails itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrodistill.doctor import main
from retrodistill.stages.reporting import environment
from retrodistill.stages.reporting.environment import Finding, as_lines, examine


def test_doctor_prints_lines_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug report without the versions in it costs a day of asking back."""
    assert main([]) == 0
    lines = capsys.readouterr().out
    assert main(["--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    names = {finding["name"] for finding in findings}
    known = {"python", "torch", "ranx", "cpu", "bfloat16", "faster ways", "faiss", "java", "hub"}
    assert known <= names
    assert all(name in lines for name in names)


def test_what_is_missing_comes_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    """`missing` without a command to type leaves the user where he was."""
    monkeypatch.setattr(environment, "_version", lambda name: "")
    missing = [finding for finding in examine() if finding.state == "missing"]
    assert {"torch", "faiss"} <= {finding.name for finding in missing}
    assert all(finding.fix for finding in missing)


def test_a_broken_library_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor is asked about broken installations: it may not break on them."""

    def _broken_part() -> Iterator[Finding]:
        yield Finding("before", "ok", "found")
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(environment, "LOOKS", (_broken_part,))
    before, broken = examine()
    assert before.state == "ok"
    assert (broken.name, broken.state) == ("broken part", "missing")
    assert "libcudart" in broken.found


@pytest.mark.parametrize(
    ("line", "major"),
    [
        ('openjdk version "21.0.2" 2024-01-16', 21),
        ('openjdk version "25" 2025-09-16', 25),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ('java version "1.8.0_392"', 8),
        ("nonsense", 0),
    ],
)
def test_java_version(tmp_path: Path, line: str, major: int) -> None:
    """Java 8 calls itself 1.8; read as 1 or as 180 it would be judged wrongly."""
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{line}' >&2\n")
    java.chmod(0o755)
    assert environment._java_version(str(java)) == (major, line)


def test_lines_are_aligned() -> None:
    """The fix stands below what it mends."""
    text = as_lines([Finding("a", "ok", "1"), Finding("longer", "missing", "none", "do it")])
    assert text.splitlines() == [
        "ok       a       1",
        "missing  longer  none",
        "                 -> do it",
    ]
