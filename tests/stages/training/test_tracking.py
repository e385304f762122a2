"""Loss terms and measurements reach the history and the trackers."""

import struct
from pathlib import Path
from typing import Any

import pytest
from fakes.models import save_tiny_model
from fakes.training import PullApart, run
from transformers import TrainerCallback

from retrodistill.base.errors import ConfigError, MissingExtra
from retrodistill.stages.training.stopping import BestWeights
from retrodistill.stages.training.tracking import LossTerms, curve, trackers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("m"), layers=1)


class Tracker(TrainerCallback):
    """Sees what a tracker sees: the logs of each on_log, at its place before other callbacks."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Any, **_: Any) -> None:
        self.rows.setdefault(state.global_step, {}).update(logs)


def test_trackers_and_history_see_every_term_and_measurement(folder: Path, tmp_path: Path) -> None:
    """A tracker that shows the sum of the losses only, and a dev curve that nobody sees."""
    task, tracker = PullApart(folder), Tracker()
    terms = LossTerms(lambda: task.losses)
    best = BestWeights(lambda: 0.5, name="ndcg@10", every=3)
    trainer = run(
        task,
        tmp_path,
        steps=6,
        callbacks=[tracker, terms, best],
        reports=[terms.means, best.latest],
    )
    assert [step for step, row in tracker.rows.items() if "eval_ndcg@10" in row] == [3, 6]
    rows = curve(trainer.state.log_history, ["loss", "near", "size"])
    assert [row["step"] for row in rows] == [2, 3, 4, 6]
    for row in rows:
        assert row["near"] + row["size"] == pytest.approx(row["loss"], rel=1e-4)
        assert tracker.rows[int(row["step"])]["near"] == row["near"]


def test_a_resumed_training_has_the_history_of_the_whole(folder: Path, tmp_path: Path) -> None:
    """A loss curve that begins at the last kill."""

    def trained(name: str, checkpoint: Path | None = None) -> list[dict[str, float]]:
        task = PullApart(folder)
        terms = LossTerms(lambda: task.losses)
        trainer = run(
            task,
            tmp_path / name,
            steps=6,
            save_steps=4,
            callbacks=[terms],
            reports=[terms.means],
            resume=checkpoint,
        )
        return curve(trainer.state.log_history, ["near", "size"])

    whole = trained("whole")
    assert trained("again", tmp_path / "whole" / "checkpoint-4") == whole
    assert [row["step"] for row in whole] == [2, 4, 6]


def test_a_real_tracker_gets_files_that_outlive_the_checkpoints(
    folder: Path, tmp_path: Path
) -> None:
    """Event files below the folder of checkpoints, which is deleted after training."""
    pytest.importorskip("tensorboardX")
    task = PullApart(folder)
    terms = LossTerms(lambda: task.losses)
    best = BestWeights(lambda: 0.5, name="ndcg@10", every=3)
    callbacks = trackers(["tensorboard"], tmp_path / "s.logs")
    run(
        task,
        tmp_path / "s.checkpoints",
        steps=6,
        callbacks=[*callbacks, terms, best],
        reports=[terms.means, best.latest],
    )
    assert not list((tmp_path / "s.checkpoints").rglob("*tfevents*"))
    (path,) = (tmp_path / "s.logs").glob("*tfevents*")
    tags = {tag for record in records(path) for tag in record}
    assert {"train/loss", "train/near", "train/size", "eval/ndcg_10"} <= tags  # @ becomes _


def records(path: Path) -> list[dict[str, float]]:
    """Return the scalars of each record of an event file."""
    from tensorboardX.proto.event_pb2 import Event

    raw, rows, start = path.read_bytes(), [], 0
    while start < len(raw):
        (length,) = struct.unpack_from("<Q", raw, start)
        event = Event.FromString(raw[start + 12 : start + 12 + length])
        rows.append({value.tag: value.simple_value for value in event.summary.value})
        start += length + 16
    return rows


def test_a_tracker_that_cannot_be_used_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing mistake, or a package that is absent, found by a traceback of transformers."""
    with pytest.raises(ConfigError, match="tensorboard"):
        trackers(["tensorbord"], tmp_path)
    with pytest.raises(MissingExtra, match="comet"):
        trackers(["comet_ml"], tmp_path)
    assert trackers([], tmp_path) == []
