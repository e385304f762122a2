"""Files and folders: whole or absent, readable by whom the user means, and nothing left over."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from retrodistill.base import files
from retrodistill.base.errors import ConfigError
from retrodistill.base.files import (
    checksum,
    is_sealed,
    is_unfinished,
    json_text,
    new_file,
    new_folder,
    refuse_existing,
    sealed,
    write_atomically,
    write_once,
)

HOLDER = """
import sys, time
from pathlib import Path
from retrodistill.base.files import new_folder, write_atomically
with new_folder(Path(sys.argv[1]), overwrite=True) as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a process that fills `tmp_path/out`, and has written half of it."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_the_umask_of_the_user_is_respected(tmp_path: Path, mask: int) -> None:
    """Manifests and shards that no colleague, container or other node can read (mode 0600)."""
    old = os.umask(mask)
    try:
        write_atomically(tmp_path / "deep" / "atomic", b"1")
        write_once(tmp_path / "once", b"1")
        with new_file(tmp_path / "lines.gz") as aside:
            aside.write_bytes(b"1")
        with new_folder(tmp_path / "folder") as folder:
            (folder / "inside").write_text("1")
            (folder / "private").touch(0o600)  # as some libraries do
    finally:
        os.umask(old)
    for name in ("deep/atomic", "once", "lines.gz", "folder/inside", "folder/private"):
        assert mode(tmp_path / name) == 0o666 & ~mask, name
    for name in ("deep", "folder"):
        assert mode(tmp_path / name) == 0o777 & ~mask, name


def test_what_a_killed_command_left_is_removed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    """Hidden folders with whole models in them, which fill the disk run after run."""
    out = tmp_path / "out"
    refuse_existing(out, overwrite=False)
    assert len(names(tmp_path)) == 1, "what a living command writes must stay"
    holder.kill()
    holder.wait()
    assert is_unfinished(next(tmp_path.iterdir()))
    (tmp_path / ".out.mine").mkdir()
    (tmp_path / ".other.new-0123abcd").mkdir()
    refuse_existing(out, overwrite=False)
    assert names(tmp_path) == [".other.new-0123abcd", ".out.mine"]
    write_atomically(tmp_path / "other", b"1")
    assert names(tmp_path) == [".out.mine", "other"]


def test_an_exchange_that_cannot_be_is_made_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--overwrite that works on one file system only."""

    def unsupported(*_: Path) -> None:
        raise OSError(errno.EINVAL, "unsupported")

    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "old").touch()
    monkeypatch.setattr(files, "_exchange_at_once", unsupported)
    with new_folder(out, overwrite=True) as folder:
        (folder / "new").touch()
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


KILLED = """
import errno, os, signal, sys
from pathlib import Path
from retrodistill.base import files

def unsupported(*_):
    raise OSError(errno.EINVAL, "unsupported")

rename, turns = os.rename, []

def dies(*words):
    rename(*words)
    turns.append(words)
    if len(turns) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

files._exchange_at_once = unsupported
os.rename = dies
with files.new_folder(Path(sys.argv[1]), overwrite=True) as folder:
    (folder / "new").touch()
"""


@pytest.mark.parametrize(("renames", "content"), [(1, "old"), (2, "new"), (3, "new")])
def test_a_kill_while_replacing_loses_nothing(
    tmp_path: Path, renames: int, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old result hidden under a name that nobody knows, and nothing in its place."""
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "old").touch()
    words = [sys.executable, "-c", KILLED, str(out), str(renames)]
    assert subprocess.run(words).returncode == -signal.SIGKILL
    with pytest.raises(ConfigError, match="exists already"):
        refuse_existing(out, overwrite=False)
    assert names(out) == [content]
    assert names(tmp_path) == ["out"]
    assert ("is put back" in capsys.readouterr().err) == (renames == 1)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_replacement_that_fails_keeps_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """A night's result deleted, and yesterday's hidden, because a rename failed."""
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "old").touch()
    rename = os.rename

    def fails(source: Path, target: Path) -> None:
        if Path(target) == out and (Path(source) / "new").exists():
            raise PermissionError(errno.EPERM, "Operation not permitted")
        rename(source, target)

    def refused(*_: Path) -> None:
        raise OSError(errno.EPERM if at_once else errno.EINVAL, "refused")

    monkeypatch.setattr(files, "_exchange_at_once", refused)
    monkeypatch.setattr(os, "rename", fails)
    refusal = pytest.raises(ConfigError, match=r"The result is in .*out\.")
    with refusal as caught, new_folder(out, overwrite=True) as folder:
        (folder / "new").touch()
    kept = str(caught.value).split("The result is in ")[1].split(":")[0]
    assert names(Path(kept)) == ["new"]
    assert names(out) == ["old"]
    assert len(names(tmp_path)) == 2


def test_a_folder_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Another command's result replaced without --overwrite, or this one's lost."""
    out = tmp_path / "out"
    refusal = pytest.raises(ConfigError, match="another process made it")
    with refusal as caught, new_folder(out) as folder:
        (folder / "mine").touch()
        out.mkdir()
        (out / "theirs").touch()
    kept = str(caught.value).split("The result is in ")[1].split(":")[0]
    assert (names(out), names(Path(kept))) == (["theirs"], ["mine"])


def test_all_files_are_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut that leaves a whole-looking folder of empty files."""
    flushed: set[tuple[int, int]] = set()
    fsync = os.fsync

    def noted(handle: int) -> None:
        state = os.fstat(handle)
        flushed.add((state.st_dev, state.st_ino))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    with new_folder(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_text("1")
    with new_file(tmp_path / "file") as aside:
        aside.write_text("1")
    paths = [tmp_path / "file", tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert {(path.stat().st_dev, path.stat().st_ino) for path in paths} <= flushed


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_is_written_once_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A traceback at the first plan on exFAT, SMB and some FUSE file systems."""

    def no_links(*_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_links)
    assert write_once(tmp_path / "plan", b"first")
    assert not write_once(tmp_path / "plan", b"second")
    assert (tmp_path / "plan").read_bytes() == b"first"
    assert names(tmp_path) == ["plan"]


@pytest.mark.parametrize("out", ["file/out", "file/deep/out", "/proc/out"])
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, out: str) -> None:
    """A training that is lost because the folder above --out is a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written .*Give a path below"):
        refuse_existing(tmp_path / out, overwrite=True)
    assert names(tmp_path) == ["file"]


def test_a_trial_leaves_nothing(tmp_path: Path) -> None:
    """Folders made by commands that were then refused for something else."""
    refuse_existing(tmp_path / "deep" / "out", overwrite=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize("out", [".", "/"])
def test_a_place_without_a_name_is_refused_or_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    """A traceback about an empty name for `--out .`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="exists already"):
        refuse_existing(Path(out), overwrite=False)
    refuse_existing(Path(out), overwrite=True)
    assert names(tmp_path) == ["here"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    """A list of a user's, gone because --out named it with --overwrite; and the other way."""
    (tmp_path / "file").write_text("1")
    with pytest.raises(ConfigError, match="is a file, but a folder was to be written"):
        refuse_existing(tmp_path / "file", overwrite=True)
    with pytest.raises(ConfigError, match="is a folder, but a file was to be written"):
        refuse_existing(tmp_path, overwrite=True, folder=False)
    refuse_existing(tmp_path / "file", overwrite=True, folder=False)


def test_every_flipped_byte_breaks_the_seal(tmp_path: Path) -> None:
    """Damaged vectors that are searched as if they were whole."""
    path = tmp_path / "part"
    content = sealed(os.urandom(100))
    path.write_bytes(content)
    assert is_sealed(path)
    whole = checksum(path)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert not is_sealed(path)
        assert checksum(path) != whole
    for length in (0, 15, 16, len(content) - 1):
        path.write_bytes(content[:length])
        assert not is_sealed(path)


def test_several_commands_may_sweep_and_write_at_once(tmp_path: Path) -> None:
    """A folder that is taken for a killed command's between its making and its locking."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom retrodistill.base.files import *\n"
        "out = Path(sys.argv[1])\n"
        "for turn in range(60):\n"
        "    with new_folder(out, overwrite=True) as folder:\n"
        "        (folder / 'a').write_text(str(turn))\n"
        "    write_atomically(out.parent / 'file', b'1')\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "out")]
    crew = [subprocess.Popen(words) for _ in range(3)]
    end = time.monotonic() + 120
    assert [process.wait(end - time.monotonic()) for process in crew] == [0, 0, 0]
    assert names(tmp_path) == ["file", "out"]
    assert (tmp_path / "out" / "a").read_text() == "59"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_appears_at_the_last_moment(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two first runs: the second ends with an error, although it was to overwrite."""
    out = tmp_path / "out"
    with (
        nullcontext() if overwrite else pytest.raises(ConfigError, match="unchanged"),
        new_folder(out, overwrite=overwrite) as folder,
    ):
        (folder / "a").write_text("second")
        out.mkdir()
        (out / "a").write_text("first")
        monkeypatch.setattr(os.path, "lexists", lambda path: False)  # as it was a moment ago
    monkeypatch.undo()
    assert (out / "a").read_text() == ("second" if overwrite else "first")


def test_json_has_null_for_what_it_lacks() -> None:
    """NaN in a file of results, which only Python reads."""
    content = {"loss": [1.5, float("nan")], "best": (float("-inf"), 2), "path": Path("a")}
    assert json.loads(json_text(content)) == {"loss": [1.5, None], "best": [None, 2], "path": "a"}
