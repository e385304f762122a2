"""A resumed training is the same training, and logs what it did."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.stages.training import loop, train_student
from retrodistill.stages.training.resuming import FILE
from retrodistill.stages.training.stopping import BestWeights

SAVED = TrainSettings(
    candidates_per_query=4,
    batch_size=4,
    max_steps=4,
    query_tokens=16,
    doc_tokens=32,
    save_steps=2,
    dropout=0.0,
    precision="float32",
)


class Killed(Exception):
    """The machine has gone."""


@pytest.fixture
def interrupted(
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Where a training was killed after its checkpoint of step 2."""

    def kill(self: TrainerCallback, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop._Bar, "on_save", kill, raising=False)
        with pytest.raises(Killed):
            train_student(collection, tiny_model, tmp_path / "s", sources=[scores], settings=SAVED)
    assert (tmp_path / "s.checkpoints" / FILE).exists()
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, r"learning_rate 3e-05 \(now 0.001\)"),
        ({"objective": "contrastive"}, r'objective "listwise-kl" \(now "contrastive"\)'),
        ({"seed": 1, "max_steps": 6}, r"max_steps 4 \(now 6\), seed 0 \(now 1\)"),
    ],
)
def test_a_resume_under_other_settings_is_refused(
    changes: dict[str, Any],
    message: str,
    interrupted: Path,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Half of one training and half of another, on whose card stands the second alone."""
    with pytest.raises(ConfigError, match=message):
        train_student(
            collection,
            tiny_model,
            interrupted,
            sources=[scores],
            resume=True,
            settings=replace(SAVED, **changes),
        )
    assert (interrupted.with_name("s.checkpoints") / "checkpoint-2").exists()


def test_a_resume_from_other_inputs_is_refused_and_from_the_same_goes_through(
    interrupted: Path, collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Other scores or another student in the second half; or a harmless setting that is refused."""
    with pytest.raises(ConfigError, match="other settings: scores "):
        train_student(
            collection,
            tiny_model,
            interrupted,
            sources=[scores.top(9)],
            resume=True,
            settings=SAVED,
        )
    with pytest.raises(ConfigError, match=r"other settings: student .* \(now \"elsewhere\"\)"):
        train_student(
            collection, "elsewhere", interrupted, sources=[scores], resume=True, settings=SAVED
        )
    train_student(
        collection,
        tiny_model,
        interrupted,
        sources=[scores],
        resume=True,
        settings=replace(SAVED, save_steps=1),
    )
    whole = train_student(
        collection, tiny_model, tmp_path / "whole", sources=[scores], settings=SAVED
    )
    resumed = Manifest.read(interrupted)
    assert resumed.fingerprint == Manifest.read(whole).fingerprint
    assert resumed.details["steps"] == 4


def test_the_steps_of_a_card_are_those_that_were_taken(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A student that patience stopped after two steps, compared as one of twenty."""
    settings = replace(
        SAVED,
        max_steps=20,
        save_steps=0,
        dev_split="test",
        eval_steps=1,
        patience=1,
        learning_rate=0.0,
    )
    out = train_student(collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings)
    details = Manifest.read(out).details
    assert (details["steps"], details["planned_steps"]) == (2, 20)
    assert "| steps | `2 of 20` |" in (out / "README.md").read_text()


def test_of_several_gpus_one_is_used(
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """DataParallel, which cuts the parts of a batch that belong together."""

    class TwoVisible(TrainingArguments):
        @cached_property
        def _setup_devices(self) -> torch.device:
            device: torch.device = TrainingArguments._setup_devices.func(self)
            self._n_gpu = 2
            return device

    seen = []

    class Spied(loop.StudentTrainer):
        def train(self, *args: Any, **settings: Any) -> Any:
            seen.append((self.args.n_gpu, self.args.train_batch_size))
            return super().train(*args, **settings)

    monkeypatch.setattr(loop, "TrainingArguments", TwoVisible)
    monkeypatch.setattr(loop, "StudentTrainer", Spied)
    train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores],
        settings=replace(SAVED, max_steps=1, save_steps=0),
    )
    assert seen == [(1, 4)]
    assert "torchrun --nproc-per-node 2" in capsys.readouterr().err


def test_the_dev_split_is_measured_by_the_main_process(
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Processes whose values differ in the last bit, and that stop at different steps."""
    measures = []

    class Spied(BestWeights):
        def __init__(self, measure: Any, **settings: Any) -> None:
            measures.append(measure)
            super().__init__(measure, **settings)

    monkeypatch.setattr(loop, "BestWeights", Spied)
    shared: list[object] = []

    def broadcast(value: Any) -> float:
        shared.append(value)
        return 0.25

    monkeypatch.setattr(loop, "of_main", broadcast)
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores],
        settings=replace(SAVED, dev_split="test", eval_steps=4),
    )
    assert Manifest.read(out).details["development"]["values"] == [[4, 0.25]]
    assert len(shared) == len(measures) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "--max-steps must be at least 1, or -1 for --epochs"),
        ({"max_steps": -2}, "--max-steps must be at least 1"),
        ({"epochs": 0.0}, "--epochs must be above 0"),
        ({"epochs": float("nan")}, "--epochs must be above 0"),
        ({"dropout": 1.5}, "--dropout must be below 1"),
        ({"dropout": 1.0}, "--dropout must be below 1"),
        ({"warmup": 10.0}, "--warmup must be below 1"),
        ({"dims": (16, 0)}, "--dims must be 1 or more each, but one is 0"),
        ({"dims": (16, -3)}, "--dims must be 1 or more each, but one is -3"),
        ({"positives_per_query": 0}, "--positives-per-query must be at least 1"),
        ({"dev_split": "dev", "unlabelled_split": ("dev",)}, "measure on queries"),
    ],
)
def test_numbers_that_train_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    """A traceback of another library after the models were loaded, or a training on zeros."""
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**changes)
