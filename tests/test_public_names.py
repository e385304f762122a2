"""What `import retrodistill` offers, and what it costs."""

import json
import subprocess
import sys

import pytest

import retrodistill
from retrodistill.__main__ import VERBS, main

LARGE = (
    "torch",
    "transformers",
    "sentence_transformers",
    "datasets",
    "faiss",
    "ranx",
    "numba",
    "pandas",
    "pyarrow",
)


def large_modules_after(code: str) -> list[str]:
    """Return which large libraries a fresh Python has loaded after running some code."""
    script = (
        "import contextlib, io, json, sys\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    {code}\n"
        f"print(json.dumps([name for name in {LARGE} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout)
    return loaded


def test_import_loads_no_large_library() -> None:
    """One import at the top of a ground module makes every start seconds slower."""
    assert large_modules_after("import retrodistill; dir(retrodistill)") == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_without_a_large_library(verb: str) -> None:
    """`--help` that waits four seconds for torch is not asked a second time."""
    code = f"from retrodistill.{verb} import main; assert main(['--help']) == 0"
    assert large_modules_after(code) == []


@pytest.mark.parametrize("name", retrodistill.__all__)
def test_public_name_resolves(name: str) -> None:
    """A name that moved would fail only in the user's hands, since it is imported late."""
    assert getattr(retrodistill, name) is not None
    assert name in dir(retrodistill)


def test_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` and `from retrodistill import x` rest on this exception."""
    assert not hasattr(retrodistill, "no_such_name")


def test_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """A verb without a line in the overview is never found."""
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb in VERBS:
        [line] = [line for line in lines if line.startswith(f"  {verb} ")]
        assert len(line.split()) > 2


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped verb must not end in a traceback of the import system."""
    assert main(["evalute"]) == 2
    assert "Did you mean 'evaluate'?" in capsys.readouterr().err


def test_verb_behind_the_package_is_the_same_as_its_module(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`retrodistill doctor` must hand on its flags, and the verb's exit status."""
    assert main(["doctor", "--help"]) == 0
    assert "python -m retrodistill.doctor" in capsys.readouterr().out
    assert main(["doctor", "--jsn"]) == 2
    assert "--json" in capsys.readouterr().err
