"""What `score` does besides scoring: compare, verify, in processes."""

from pathlib import Path

import pytest
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_cross_encoder

from retrodistill.base.config import MineSettings, ScoreConfig
from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import PreferenceStore
from retrodistill.score import main
from retrodistill.stages.mining import mine_candidates


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small collection, its candidates in runs/train, and the folder to work in."""
    monkeypatch.chdir(tmp_path)
    save_small_collection(tmp_path / "data")
    collection = load_collection("beir:data")
    mine_candidates(collection, "train", settings=MineSettings(depth=8, add_positives=True)).write(
        Path("runs/train")
    )
    return "beir:data"


def run(line: str, capsys: pytest.CaptureFixture[str], *, status: int = 0) -> tuple[str, str]:
    exit_status = main(line.split())
    printed = capsys.readouterr()
    assert exit_status == status, printed.err
    return printed.out, printed.err


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("--data D --out s", 2, "give one of"),
        ("--out s --teacher bm25 --candidates runs/train", 2, "--data"),
        ("--data D --teacher bm25 --out s", 2, "--candidates"),
        ("--data D --teacher bm25 --candidates runs/train --out s --option k=1", 2, "names: none"),
        ("--data D --teacher bm25 --candidates runs/train --out s --preferences", 2, "pairwise"),
        ("--data D --teacher bm25 --candidates runs/train --out s --workers 2", 2, "--executor"),
    ],
)
def test_mistakes_are_explained(
    line: str, status: int, message: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or a store that is begun before the mistake is found."""
    _, said = run(line.replace("D ", f"{data} "), capsys, status=status)
    assert message in said
    assert "Traceback" not in said


def test_preferences_processes_and_status(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs of the command that work in Python only."""
    duo = save_tiny_cross_encoder(tmp_path / "duo")
    common = f"--data {data} --candidates runs/train"
    line = f"{common} --teacher pairwise:{duo} --preferences --opponents 1 --out preferences"
    run(f"{line} --max-tokens 64", capsys)
    edges = PreferenceStore.open(Path("preferences")).edges()
    assert len(edges) == len(Run.read(Path("runs/train")))
    run(f"{common} --teacher bm25 --out one --shard-pairs 20", capsys)
    line = f"{common} --teacher bm25 --out two --shard-pairs 20 --executor processes --workers 2"
    run(line, capsys)
    assert Run.read(Path("one")).table.equals(Run.read(Path("two")).table)
    said, _ = run("--status --out two", capsys)
    assert f"{len(edges):,} pairs scored" in said


def test_settings_exclude_each_other_before_anything_is_read() -> None:
    """Two jobs in one line, of which one is silently left undone."""
    for wrong in (
        {"teacher": "bm25", "candidates": Path("x"), "status": True},
        {"teacher": "bm25", "candidates": Path("x"), "verify": 3},
    ):
        with pytest.raises(ConfigError):
            ScoreConfig(out=Path("s"), data="beir:x", **wrong)
