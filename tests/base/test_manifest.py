"""Artifact folders: whole or absent, and what they say about themselves."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import new_folder, write_atomically
from retrodistill.base.manifest import FILE, FORMAT, Manifest, digest, digest_files

WRITER = """
import sys
from pathlib import Path
from retrodistill.base.files import write_atomically
path = Path(sys.argv[1])
for turn in range(1_000_000):
    write_atomically(path, bytes([turn % 2]) * 3_000_000)
    print(turn, flush=True)
"""


@pytest.mark.parametrize("milliseconds", [0, 3, 7, 12, 20])
def test_killed_writer_leaves_a_whole_file(tmp_path: Path, milliseconds: int) -> None:
    """Half a manifest after a kill makes a finished hour of scoring unreadable."""
    path = tmp_path / "file"
    words = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        time.sleep(milliseconds / 1000)
        writer.kill()
    content = path.read_bytes()
    assert content in (bytes(3_000_000), b"\1" * 3_000_000)


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not cost what was there, nor leave rubbish beside it."""
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    """What is lost on the way is lost for every check of provenance."""
    manifest = Manifest(
        kind="run",
        fingerprint="f",
        inputs={"collection": "c"},
        config={"data": "beir:é", "k": 3, "none": None},
        details={"seconds": 0.5},
    )
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path, kind="run") == manifest


def test_wrong_kind(tmp_path: Path) -> None:
    """Scores given as a run would be read as something that they are not."""
    Manifest(kind="scores", fingerprint="f").write(tmp_path)
    with pytest.raises(DataError, match="is of kind 'scores', but 'run' was wanted"):
        Manifest.read(tmp_path, kind="run")


def test_no_manifest(tmp_path: Path) -> None:
    """The parent of an artifact, or a file, is what people give by mistake."""
    (tmp_path / "file").write_text("q1 Q0 d1 1 1.0 x")
    for given_path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(DataError, match=f"is not a run folder: it has no {FILE}"):
            Manifest.read(given_path, kind="run")


def test_no_flipped_bit_of_a_manifest_is_believed(tmp_path: Path) -> None:
    """Scores of another scale, or of another teacher, by one bit of the file."""
    manifest = Manifest(
        kind="scores",
        fingerprint="ab" * 32,
        inputs={"teacher": "cd" * 32},
        config={"temperature": 0.1, "out": "x", "layers": [0, 2]},
        details={"scale": "logit", "unit": "pair", "seconds": 1e-7},
    )
    manifest.write(tmp_path)
    sound = (tmp_path / FILE).read_bytes()
    assert Manifest.read(tmp_path) == manifest
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << position % 7
        (tmp_path / FILE).write_bytes(damaged)
        with suppress(DataError):
            assert Manifest.read(tmp_path) == manifest, bytes(damaged[position - 20 : position + 9])


def test_a_line_of_files_may_be_taken_away(tmp_path: Path) -> None:
    """The remedy that the message of a changed file gives, and that does not work."""
    Manifest(kind="index", fingerprint="ab", files={"a": "1", "b": "2"}).write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    del content["files"]["b"]
    (tmp_path / FILE).write_text(json.dumps(content))
    assert Manifest.read(tmp_path).files == {"a": "1"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'{"kind": "run"}',
        b'{"a": 1}',
        b"\xff",
        b"[" * 100_000,
        b'{"kind": "run", "fingerprint": 3}',
        b'{"kind": "run", "fingerprint": "f", "details": []}',
        b'{"kind": "run", "fingerprint": "f", "inputs": {"teacher": 3}}',
        b'{"kind": "run", "fingerprint": "f", "files": []}',
    ],
    ids=lambda content: repr(content[:40]),
)
def test_damaged_manifest(tmp_path: Path, content: bytes) -> None:
    """A damaged file is named, instead of a JSONDecodeError without a path."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DataError, match=FILE):
        Manifest.read(tmp_path)


def test_newer_format(tmp_path: Path) -> None:
    """A folder of a later version must not be read by the rules of this one."""
    Manifest(kind="run", fingerprint="f").write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | {"format": FORMAT + 1}))
    with pytest.raises(DataError, match=f"has format {FORMAT + 1}"):
        Manifest.read(tmp_path)


def test_new_folder_appears_only_when_finished(tmp_path: Path) -> None:
    """A half-filled folder under the final name looks like a finished one."""
    out = tmp_path / "deep" / "run"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert (out / "a").read_text() == "1"
    assert [p.name for p in out.parent.iterdir()] == ["run"]


def test_new_folder_that_fails_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    """--overwrite that fails half-way must not cost the old artifact."""
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="half-way"), new_folder(out) as folder:
        (folder / "a").write_text("1")
        raise RuntimeError("half-way")
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "old").write_text("0")
    with pytest.raises(RuntimeError, match="half-way"), new_folder(out, overwrite=True):
        raise RuntimeError("half-way")
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["run", "run/old"]


def test_new_folder_replaces_only_when_told(tmp_path: Path) -> None:
    """Yesterday's run is gone without a question otherwise; old and new files must not mix."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "old").write_text("0")
    with pytest.raises(ConfigError, match="--overwrite"), new_folder(out):
        pass
    assert (out / "old").exists()
    with new_folder(out, overwrite=True) as folder:
        (folder / "new").write_text("1")
    assert [p.name for p in out.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


PARTS = st.lists(st.text(max_size=4), max_size=4).map(tuple)


@given(PARTS, PARTS)
def test_digest_knows_the_boundaries(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """("ab", "c") and ("a", "bc") under one key would share a score."""
    assert (digest(*one) == digest(*other)) == (one == other)


def test_digest_knows_the_boundaries_by_hand() -> None:
    """As above, for the case that chance may miss."""
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", "")}) == 4
    assert digest("é") == digest("é".encode())


def test_digest_of_files_sees_names_and_contents(tmp_path: Path) -> None:
    """A model whose weights or file names changed must not keep its scores."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_text("1")
    (tmp_path / "sub" / "b").write_text("2")
    seen = [digest_files(tmp_path)]
    (tmp_path / "a").write_text("3")
    seen.append(digest_files(tmp_path))
    (tmp_path / "a").rename(tmp_path / "c")
    seen.append(digest_files(tmp_path))
    (tmp_path / "sub" / "b").rename(tmp_path / "b")
    seen.append(digest_files(tmp_path))
    assert len(set(seen)) == 4
    (tmp_path / FILE).write_text("{}")
    assert digest_files(tmp_path) == seen[-1]
