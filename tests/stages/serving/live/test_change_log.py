"""The log of changes against a dictionary, and against damage at every byte."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.stages.serving.live.change_log import FILE, ChangeLog, Latest, Origin
from retrodistill.stages.serving.live.documents import Document

ORIGIN = Origin("index", "encoder", "small")
Plain = dict[str, tuple[str, list[float]] | None]
"""Id -> text and vector, or None."""


@pytest.fixture
def changes(tmp_path: Path) -> Iterator[ChangeLog]:
    opened = ChangeLog.open(tmp_path / "ix", ORIGIN)
    yield opened
    opened.close()


def put(changes: ChangeLog, texts: dict[str, str]) -> None:
    vectors = np.array([[len(text), 0.5] for text in texts.values()], np.float32)
    changes.put([Document(id, "", text, {"n": 1}) for id, text in texts.items()], vectors)


def plain(latest: Latest) -> Plain:
    return {
        id: None if change is None else (change.doc.text, change.vector.tolist())
        for id, change in latest.items()
    }


def reopened(changes: ChangeLog) -> ChangeLog:
    changes.close()
    return ChangeLog.open(changes.path.parent, ORIGIN)


IDS = st.sampled_from(["a", "b", "ü", "日本", "a b", '"', "\n", "🙂"])
STEPS = st.lists(
    st.one_of(
        st.dictionaries(IDS, st.text(max_size=8).filter(lambda t: t.isprintable()), min_size=1),
        st.lists(IDS, min_size=1, unique=True),
        st.just("rewrite"),
        st.just("reopen"),
        st.just("undo"),
    ),
    max_size=12,
)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_log_is_a_dictionary(steps: list, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A log that forgets, reorders or brings back a change looks like one until it is read."""
    changes = ChangeLog.open(tmp_path_factory.mktemp("log") / "ix", ORIGIN)
    model: Plain = {}
    before: Plain | None = None
    for step in steps:
        if step == "reopen":
            changes, before = reopened(changes), None
        elif step == "rewrite":
            changes.rewrite(ORIGIN, changes.latest())
            before = None
        elif step == "undo":
            if before is not None:
                changes.undo()
                model, before = before, None
        else:
            before = dict(model)
            if isinstance(step, dict):
                put(changes, step)
                model |= {id: (text, [len(text), 0.5]) for id, text in step.items()}
            else:
                changes.delete(step)
                model |= dict.fromkeys(step)
        assert plain(changes.latest()) == model
    changes.close()


def test_cut_at_every_byte_of_the_last_record(
    changes: ChangeLog, caplog: pytest.LogCaptureFixture
) -> None:
    """A killed writer's half record must neither stop the server nor show as half a request."""
    put(changes, {"a": "one"})
    start = changes.path.stat().st_size
    put(changes, {"b": "two", "c": "three"})
    content = changes.path.read_bytes()
    for end in range(start, len(content)):
        changes.close()
        changes.path.write_bytes(content[:end])
        caplog.clear()
        changes = ChangeLog.open(changes.path.parent, ORIGIN)
        assert plain(changes.latest()) == {"a": ("one", [3, 0.5])}
        assert ("not finished" in caplog.text) == (end > start)
        assert changes.path.stat().st_size == start
    put(changes, {"d": "four"})
    changes = reopened(changes)
    assert [*changes.latest()] == ["a", "d"]
    changes.close()


def test_zeros_after_a_power_cut(changes: ChangeLog) -> None:
    """A file system may lengthen a file before it writes the content: that is no damage."""
    put(changes, {"a": "one"})
    start = changes.path.stat().st_size
    put(changes, {"b": "two"})
    content = changes.path.read_bytes()
    for written in (start, start + 5, start + 60, len(content) - 9):
        for size in (written + 1, written + 8, len(content)):
            changes.close()
            changes.path.write_bytes(content[:written].ljust(size, b"\0"))
            changes = ChangeLog.open(changes.path.parent, ORIGIN)
            assert [*changes.latest()] == ["a"]
    changes.close()


def test_a_changed_byte_anywhere_is_damage(changes: ChangeLog) -> None:
    """Damage that is taken for the end of the log drops every change after it, in silence."""
    put(changes, {"a": "one"})
    changes.delete(["b"])
    put(changes, {"c": "two"})
    content = changes.path.read_bytes()
    changes.close()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF if position % 2 else 0x01
        changes.path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"changes\.log is damaged in record \d"):
            ChangeLog.open(changes.path.parent, ORIGIN)
    changes.path.write_bytes(content)
    changes = ChangeLog.open(changes.path.parent, ORIGIN)
    assert plain(changes.latest()) == {
        "a": ("one", [3, 0.5]),
        "b": None,
        "c": ("two", [3, 0.5]),
    }
    changes.close()


def test_a_missing_record_is_damage(changes: ChangeLog) -> None:
    """A record that is cut out whole leaves sound neighbours."""
    ends = []
    for id in "abc":
        put(changes, {id: "text"})
        ends.append(changes.path.stat().st_size)
    content = changes.path.read_bytes()
    changes.close()
    changes.path.write_bytes(content[: ends[0]] + content[ends[1] :])
    with pytest.raises(DataError, match=f"record 2, at byte {ends[0]}.*--size={ends[0]}"):
        ChangeLog.open(changes.path.parent, ORIGIN)


def test_rewriting_drops_what_is_superseded(changes: ChangeLog) -> None:
    """A log that only grows fills the disk with old versions of one document."""
    for number in range(50):
        put(changes, {"a": f"version {number}", f"b{number}": "text"})
    changes.delete(["gone"])
    before, size = plain(changes.latest()), changes.path.stat().st_size
    assert changes.entries == 101
    changes.rewrite(Origin("other", "encoder", "small"), changes.latest())
    changes = reopened(changes)
    assert plain(changes.latest()) == before
    assert changes.entries == 52
    assert changes.origin.index == "other"
    assert changes.path.stat().st_size < 0.7 * size
    changes.close()


def test_one_process_at_a_time(changes: ChangeLog) -> None:
    """Two servers that append to one file overwrite each other's records."""
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        ChangeLog.open(changes.path.parent, ORIGIN)
    changes.close()
    ChangeLog.open(changes.path.parent, ORIGIN).close()


def _fill_up(folder: Path, failed: "multiprocessing.Queue[str]") -> None:
    """Append under a limit of the file's size, as on a full disk."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    changes = ChangeLog.open(folder, ORIGIN)
    put(changes, {"a": "one"})
    size = changes.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, resource.RLIM_INFINITY))
    try:
        put(changes, {"b": "x" * 1000})
    except ConfigError as error:
        failed.put(str(error))
    put(changes, {"c": ""})  # small enough
    changes.close()


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """Half a record in the middle of the log would make every later change unreadable."""
    context = multiprocessing.get_context("spawn")
    failed = context.Queue()
    process = context.Process(target=_fill_up, args=(tmp_path / "ix", failed))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert "cannot be written" in failed.get(timeout=5)
    changes = ChangeLog.open(tmp_path / "ix", ORIGIN)
    assert [*changes.latest()] == ["a", "c"]
    changes.close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A stack trace does not say which setting is wrong."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--changes"):
        ChangeLog.open(tmp_path / "file" / "ix", ORIGIN)


def test_closed_log_refuses(changes: ChangeLog) -> None:
    """A change after closing would be lost, or written where another server writes."""
    changes.close()
    with pytest.raises(ConfigError, match="closed"):
        put(changes, {"a": "one"})
    assert changes.path.name == FILE
