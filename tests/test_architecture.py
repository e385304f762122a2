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


def test_the_package_holds_verbs_and_five_floors_only() -> None:
    """A module among the verbs that is none: `ls retrodistill` no longer explains the system."""
    package = ROOT / "retrodistill"
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    assert modules == {*VERBS}
    assert folders == {"stages", "models", "objectives", "data", "base"}


def test_every_folder_says_what_lives_there() -> None:
    """A newcomer who opens a folder and has to read all of its files."""
    for init in (ROOT / "retrodistill").rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), init
