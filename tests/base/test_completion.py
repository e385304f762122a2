"""Groups in `--help`, completion in a real shell, and messages that can be silenced."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrodistill.__main__ import VERBS, completion
from retrodistill.base import config as configs
from retrodistill.base.command import groups, help_texts

CONFIGS = [getattr(configs, f"{verb.capitalize()}Config") for verb in VERBS]


@pytest.mark.parametrize("config_class", CONFIGS)
def test_every_flag_is_in_one_group_and_every_group_has_flags(config_class: type) -> None:
    """A renamed field at which a group began: its flags would move to the group before."""
    fields = [
        item.name for item in dataclasses.fields(config_class) if not item.metadata.get("file_only")
    ]
    grouped = groups(config_class)
    assert sorted(name for names in grouped.values() for name in names) == sorted(fields)
    for part in config_class.__mro__:
        for title, start in vars(part).get("GROUPS", {}).items():
            assert start in fields, f"{title!r} starts at {start!r}, which is no field"
    if len(fields) > 10:
        assert len(grouped) >= 3
        assert "settings" not in grouped
    assert help_texts(config_class).keys() >= {*fields}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return bash's completion script, made by the command."""
    pytest.importorskip("shtab")
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    made = subprocess.run(
        [sys.executable, "-m", "retrodistill", "--completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    )
    path = tmp_path_factory.mktemp("completion") / "script"
    path.write_text(made.stdout)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lea", "leakage"),
        ("train --negative-s", "--negative-sampling"),
        ("train --pooling m", "mean"),
        ("score --teacher cross", "cross-encoder"),
        ("embed --index hn", "hnsw"),
        ("mine --data buil", "builtin:"),
    ],
)
def test_bash_completes(script: Path, words: str, expected: str) -> None:
    """A script that a shell cannot run, or that knows the flags of last year."""
    ask = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        complete=$(complete -p retrodistill | sed -E 's/.*-F ([^ ]+) .*/\\1/')
        "$complete" retrodistill "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[@]}"
    """
    answer = subprocess.run(
        ["bash", "-c", ask, "bash", str(script), "retrodistill", *words.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == [expected]


def test_an_unknown_shell_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback for a typo."""
    assert completion(["bsh"]) == 2
    assert "Did you mean 'bash'?" in capsys.readouterr().err
    assert completion([]) == 2


@pytest.mark.parametrize("words", ["train --list", "--completion bash", "train --help"])
def test_a_reader_that_has_read_enough_is_no_crash(words: str) -> None:
    """`| head -1` that ends in a BrokenPipeError with a traceback."""
    pytest.importorskip("shtab")
    command = f"{sys.executable} -m retrodistill {words} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert done.stderr == ""


LIBRARY = """
import logging, sys
import retrodistill as rd
collection = rd.load_collection("beir:" + sys.argv[1])
candidates = rd.mine_candidates(collection, "train")
candidates.write(sys.argv[2])
teacher = rd.load_teacher("bm25", collection)
rd.score_candidates(collection, candidates, teacher, out=sys.argv[2] + "-scores")
"""


def test_a_library_call_prints_nothing(folder: Path, tmp_path: Path) -> None:
    """Lines among the output of somebody's own program, which cannot be turned off."""
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY, str(folder), str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_quiet_keeps_results_and_errors_alone(folder: Path, tmp_path: Path) -> None:
    """Progress in a cron job's mail; and a `--quiet` that swallows the error as well."""
    mine = [sys.executable, "-m", "retrodistill.mine", "--data", f"beir:{folder}", "--quiet"]
    out = str(tmp_path / "run")
    done = subprocess.run([*mine, "--out", out], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, out, "")
    again = subprocess.run([*mine, "--out", out], capture_output=True, text=True)
    assert again.returncode == 2
    assert "exists already" in again.stderr
