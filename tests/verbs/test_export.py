"""The command `export`: its table, what it prints, its exit statuses."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from retrodistill import export
from retrodistill.stages.exporting import requirements


@pytest.fixture
def words(tiny_model: Path, folder: Path, tmp_path: Path) -> list[str]:
    """Return a command line whose limit of speed a tiny model meets."""
    out = os.fspath(tmp_path / "out")
    data = f"beir:{folder}"
    return ["--model", str(tiny_model), "--data", data, "--split", "test", "--out", out]


def test_exit_status_follows_the_gate(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipeline that goes on after a failed gate deploys what failed."""
    pytest.importorskip("onnxruntime")
    assert export.main([*words, "--min-speedup", "1e6"]) == 1
    said = capsys.readouterr().out
    assert "Failed: it is" in said
    assert "is not written" in said
    assert not (tmp_path / "out").exists()
    assert export.main(words) == 0
    said = capsys.readouterr().out
    assert "lowest cosine" in said
    assert said.rstrip().endswith(str(tmp_path / "out"))
    assert (tmp_path / "out" / "onnx" / "model.onnx").is_file()


def test_missing_package_is_named_before_any_work(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ImportError after the model was loaded and traced, without what to install."""
    monkeypatch.setattr(
        requirements, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name)
    )
    assert export.main(words) == 2
    assert "pip install 'retrodistill[export]'" in capsys.readouterr().err
