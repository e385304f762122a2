"""What was measured once is not measured again, and a broken file costs a measurement, no more."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retrodistill.models.inference import choices


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing was measured."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    new_process(monkeypatch)


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "_known", {})


def trial(times: list[int]) -> Callable[[], tuple[Callable[[], None], Callable[[], None]]]:
    """Return a trial whose first call is the faster one; it counts how often it is asked for."""

    def make() -> tuple[Callable[[], None], Callable[[], None]]:
        times.append(1)
        return lambda: None, lambda: time.sleep(0.002)

    return make


def test_it_is_measured_once_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process measuring again, or two of them with different number types."""
    times: list[int] = []
    first = choices.speedup("one way", trial(times))
    assert first > 1
    new_process(monkeypatch)
    assert choices.speedup("one way", trial(times)) == first
    assert len(times) == 1
    assert choices.made_here() == {"one way": first}


def test_another_machine_measures_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder on several machines, or another number of threads."""
    times: list[int] = []
    choices.speedup("one way", trial(times))
    new_process(monkeypatch)
    monkeypatch.setattr(choices, "processor", lambda: "another one")
    assert choices.made_here() == {}
    choices.speedup("one way", trial(times))
    assert len(times) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"one way": "fast"}', b"\xff"])
def test_a_broken_file_is_measured_over(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that fails for a cache's sake."""
    choices.choices_file().parent.mkdir(parents=True)
    choices.choices_file().write_bytes(content)
    times: list[int] = []
    kept = choices.speedup("one way", trial(times))
    new_process(monkeypatch)
    assert choices.speedup("one way", trial(times)) == kept
    assert len(times) == 1


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container whose home is read-only."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "file" / "below"))
    assert choices.speedup("one way", trial([])) > 1
