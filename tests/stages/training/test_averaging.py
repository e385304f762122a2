"""Averaged weights follow their definition, also after a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.models import save_tiny_model
from fakes.training import PullApart, assert_equal, run, weights
from transformers import TrainerCallback

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.stages.training.averaging import FILE, WeightAverage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("m"), layers=1)


class Trajectory(TrainerCallback):
    """Keeps the weights before the first step, and after each."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        self.weights.append(weights(objects["model"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        self.weights.append(weights(objects["model"]))


def test_an_exponential_average_by_hand(folder: Path, tmp_path: Path) -> None:
    """A decay at the wrong side, or a warm-up that is off: an average of the start."""
    task, path = PullApart(folder), Trajectory()
    run(task, tmp_path, steps=5, callbacks=[path, WeightAverage("ema", 5, decay=0.35)])
    start, *after = path.weights
    # (1 + t) / (10 + t) for t = 1 ... 5 is 2/11, 3/12, 4/13, 5/14 and 6/15, of which the last
    # two are above 0.35.
    decays = (2 / 11, 3 / 12, 4 / 13, 0.35, 0.35)
    for name, final in weights(task).items():
        expected = start[name].double()
        for decay, step in zip(decays, after, strict=True):
            expected = decay * expected + (1 - decay) * step[name]
        torch.testing.assert_close(final, expected.float(), rtol=1e-5, atol=1e-6)
    name = "model.0.model.embeddings.word_embeddings.weight"
    assert not torch.equal(weights(task)[name], after[-1][name])


def test_a_simple_average_by_hand(folder: Path, tmp_path: Path) -> None:
    """A mean that has the first half in it, or leaves the last step out."""
    task, path = PullApart(folder), Trajectory()
    average = WeightAverage("sma", 7, start=0.5)
    run(task, tmp_path, steps=7, callbacks=[path, average])
    assert average.count == 4  # after steps 4, 5, 6 and 7: those behind 3.5 steps
    for name, final in weights(task).items():
        expected = torch.stack([step[name] for step in path.weights[4:]]).double().mean(0)
        torch.testing.assert_close(final, expected.float(), rtol=1e-5, atol=1e-6)


def test_averaging_does_not_change_the_trajectory(folder: Path, tmp_path: Path) -> None:
    """An average that is trained on."""
    plain, averaged = Trajectory(), Trajectory()
    run(PullApart(folder), tmp_path / "a", steps=4, callbacks=[plain])
    run(PullApart(folder), tmp_path / "b", steps=4, callbacks=[WeightAverage("ema", 4), averaged])
    for unaveraged, right in zip(plain.weights, averaged.weights, strict=True):
        assert_equal(unaveraged, right)


def test_the_average_is_applied_for_a_block_only(folder: Path, tmp_path: Path) -> None:
    """Weights that come back from a measurement rounded, or not at all."""
    task, average = PullApart(folder), WeightAverage("ema", 3)
    run(task, tmp_path, steps=3, callbacks=[average])
    final = weights(task)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(1e-3)
    moved = weights(task)
    with pytest.raises(RuntimeError, match="stop"), average.applied(task):
        assert_equal(weights(task), final)
        raise RuntimeError("stop")
    assert_equal(weights(task), moved)


@pytest.mark.parametrize("kind", ["ema", "sma"])
def test_a_resumed_average_is_that_of_the_undisturbed_training(
    kind: Any, folder: Path, tmp_path: Path
) -> None:
    """A resume that restarts the average from the checkpoint's weights."""
    whole, resumed = PullApart(folder), PullApart(folder)
    run(whole, tmp_path / "whole", steps=8, save_steps=3, callbacks=[WeightAverage(kind, 8)])
    for step in (3, 6):
        checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
        average = WeightAverage(kind, 8, checkpoint=checkpoint)
        run(
            resumed,
            tmp_path / f"from-{step}",
            steps=8,
            save_steps=3,
            resume=checkpoint,
            callbacks=[average],
        )
        assert_equal(weights(whole), weights(resumed))
        assert average.count == (8 if kind == "ema" else 4)


def test_a_checkpoint_without_an_average_is_explained(folder: Path, tmp_path: Path) -> None:
    """--average that is added at a resume, and silently averages the rest only."""
    run(PullApart(folder), tmp_path, steps=2, save_steps=1)
    checkpoint = tmp_path / "checkpoint-1"
    with pytest.raises(DataError, match="without --resume"):
        run(
            PullApart(folder),
            tmp_path / "b",
            steps=2,
            resume=checkpoint,
            callbacks=[WeightAverage("ema", 2, checkpoint=checkpoint)],
        )
    (checkpoint / FILE).write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        run(
            PullApart(folder),
            tmp_path / "b",
            steps=2,
            resume=checkpoint,
            callbacks=[WeightAverage("ema", 2, checkpoint=checkpoint)],
        )


def test_a_frozen_part_is_unchanged(folder: Path, tmp_path: Path) -> None:
    """A frozen tower that costs a second copy, or whose bits change."""
    task = PullApart(folder)
    task.model[0].model.embeddings.requires_grad_(False)
    before = weights(task)
    run(task, tmp_path, steps=3, save_steps=3, callbacks=[WeightAverage("ema", 3)])
    after = weights(task)
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) == (".embeddings." in name or "pooler" in name), (
            name
        )


def test_numbers_out_of_range_are_refused() -> None:
    """A decay of 1, which returns the untrained student."""
    with pytest.raises(ConfigError, match="--average-decay"):
        WeightAverage("ema", 10, decay=1.0)
    with pytest.raises(ConfigError, match="--average-start"):
        WeightAverage("sma", 10, start=float("nan"))
