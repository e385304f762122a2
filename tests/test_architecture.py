"""The layers of pyproject.toml hold, and the verbs stay thin."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from retrodistill.__main__ import VERBS

ROOT = Path(__file__).parents[1]
LINES_OF_A_VERB = 100
LONGER = {"quickstart": 250}
"""Verbs that may be longer: the quickstart goes through all stages and tells of each."""


def test_imports_point_down(capsys: pytest.CaptureFixture[str]) -> None:
    """One import upwards, and a ground module drags torch into every `--help`."""
    broken = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert not broken, capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_holds_no_class_and_little_code(verb: str) -> None:
    """Under `python -m` a class is named __main__.X, which another process cannot find."""
    source = (ROOT / "retrodistill" / f"{verb}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert len(source.splitlines()) <= LONGER.get(verb, LINES_OF_A_VERB)
