"""The layers of pyproject.toml hold, and verbs hold no class."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from retrodistill.__main__ import VERBS

ROOT = Path(__file__).parents[1]


def test_imports_point_down(capsys: pytest.CaptureFixture[str]) -> None:
    """One import upwards, and a ground module drags torch into every `--help`."""
    broken = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert not broken, capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_holds_no_class(verb: str) -> None:
    """Under `python -m` a class is named __main__.X, which another process cannot find."""
    source = (ROOT / "retrodistill" / f"{verb}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
