"""The best weights are kept, training stops without a gain, and a resume continues both."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_model
from fakes.training import PullApart, assert_equal, run, weights

from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import load_collection
from retrodistill.stages.training.averaging import WeightAverage
from retrodistill.stages.training.development import Development
from retrodistill.stages.training.resuming import last_checkpoint
from retrodistill.stages.training.snapshots import read_snapshot
from retrodistill.stages.training.stopping import FILE, BestWeights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("m"), layers=1)


class Scripted:
    """A measurement whose values are given, and which keeps what weights it saw."""

    def __init__(self, task: PullApart, values: Sequence[float]) -> None:
        self.task, self.values = task, list(values)
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self) -> float:
        self.seen.append(weights(self.task))
        return self.values[len(self.seen) - 1]


def test_the_best_weights_come_back(folder: Path, tmp_path: Path) -> None:
    """A student that is the last one although an earlier one searched better."""
    task = PullApart(folder)
    measure = Scripted(task, [0.1, 0.5, 0.5, 0.2])
    best = BestWeights(measure, name="x", every=2)
    trainer = run(task, tmp_path, steps=7, callbacks=[best])
    assert trainer.state.global_step == 7
    assert best.values == [(2, 0.1), (4, 0.5), (6, 0.5), (7, 0.2)]
    assert best.best == (4, 0.5)
    assert_equal(weights(task), measure.seen[1])


def test_training_stops_when_patience_ends(folder: Path, tmp_path: Path) -> None:
    """Hours of training after the last gain; or a stop at the first step back."""
    task = PullApart(folder)
    measure = Scripted(task, [0.1, 0.3, 0.2, 0.3, 0.2, 0.9])
    best = BestWeights(measure, name="x", every=1, patience=3)
    trainer = run(task, tmp_path, steps=6, callbacks=[best])
    assert trainer.state.global_step == 5
    assert best.exhausted
    assert best.best == (2, 0.3)
    assert_equal(weights(task), measure.seen[1])


def test_small_gains_are_kept_but_do_not_count_for_patience(folder: Path, tmp_path: Path) -> None:
    """Noise that keeps a training alive; or better weights that are thrown away as noise."""
    task = PullApart(folder)
    measure = Scripted(task, [0.500, 0.504, 0.508, 0.512, 0.513, 0.514, 0.9])
    best = BestWeights(measure, name="x", every=1, patience=3, min_delta=0.01)
    trainer = run(task, tmp_path, steps=7, callbacks=[best])
    # 0.512 is the first value that is 0.01 above 0.500; none is 0.01 above 0.512 before 0.9.
    assert trainer.state.global_step == 7
    resumed = BestWeights(
        Scripted(task, [0.500, 0.504, 0.508, 0.509, 0.9]),
        name="x",
        every=1,
        patience=3,
        min_delta=0.01,
    )
    trainer = run(task, tmp_path, steps=5, callbacks=[resumed])
    assert trainer.state.global_step == 4
    assert resumed.best == (4, 0.509)


def test_a_resumed_training_is_the_undisturbed_one(folder: Path, tmp_path: Path) -> None:
    """A resume that forgets the best weights before it, or counts patience from zero."""
    values = [0.1, 0.6, 0.2, 0.3, 0.4, 0.5]
    whole = PullApart(folder)
    measure = Scripted(whole, values)
    best = BestWeights(measure, name="x", every=2, patience=3)
    trainer = run(whole, tmp_path / "whole", steps=12, save_steps=5, callbacks=[best])
    assert trainer.state.global_step == 10  # three values in a row below that of step 4
    assert_equal(weights(whole), measure.seen[1])
    for step, remaining in ((5, values[2:]), (10, [])):
        task = PullApart(folder)
        checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
        resumed = BestWeights(
            Scripted(task, remaining), name="x", every=2, patience=3, checkpoint=checkpoint
        )
        run(task, tmp_path / f"from-{step}", steps=12, resume=checkpoint, callbacks=[resumed])
        assert resumed.values == best.values
        assert_equal(weights(task), weights(whole))


def test_a_checkpoint_that_counts_as_whole_has_the_state(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the Trainer's files and ours, after which no resume works any more."""
    from transformers import TrainerState

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    task = PullApart(folder)
    best = BestWeights(Scripted(task, [0.1, 0.2]), name="x", every=4)
    run(task, tmp_path, steps=2, save_steps=1, callbacks=[best])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainerState, "save_to_json", killed)
        run(
            PullApart(folder),
            tmp_path / "torn",
            steps=2,
            save_steps=1,
            callbacks=[BestWeights(Scripted(task, []), name="x", every=4)],
        )
    assert (tmp_path / "torn" / "checkpoint-1" / FILE).exists()
    assert last_checkpoint(tmp_path / "torn") is None
    # Before the first measurement there are no best weights, and the state records that.
    stored, numbers = read_snapshot(tmp_path / "checkpoint-1", FILE, task)
    assert not stored
    assert numbers == {"values": [], "waited": 0, "mark": None}


def test_with_an_average_it_is_the_average_that_is_measured_and_kept(
    folder: Path, tmp_path: Path
) -> None:
    """Averaged weights that were never measured, chosen by the value of others."""
    task = PullApart(folder)
    average = WeightAverage("ema", 4)
    measure = Scripted(task, [0.1, 0.5, 0.4, 0.3])
    best = BestWeights(measure, name="x", every=1, weights=average.applied)
    run(task, tmp_path / "a", steps=4, callbacks=[average, best])
    assert_equal(weights(task), measure.seen[1])
    alone = PullApart(folder)
    run(alone, tmp_path / "b", steps=4, callbacks=[WeightAverage("ema", 4)])
    assert_equal(weights(alone), measure.seen[3])


def test_a_real_measurement_chooses_the_weights_that_search_best(
    folder: Path, tmp_path: Path
) -> None:
    """A measure of one model and the weights of another."""
    collection = load_collection(f"beir:{save_small_collection(tmp_path / 'data')}")
    task = PullApart(folder)
    measure = Development(collection, "test", "mrr@10")
    best = BestWeights(lambda: measure(task.model), name="mrr@10", every=2)
    trainer = run(task, tmp_path / "t", steps=6, callbacks=[best], reports=[best.latest])
    assert best.best is not None
    assert measure(task.model) == best.best[1]
    logged = {
        row["step"]: row["eval_mrr@10"] for row in trainer.state.log_history if "eval_mrr@10" in row
    }
    assert logged == dict(best.values)


def test_a_value_that_is_no_number_ends_the_training(folder: Path, tmp_path: Path) -> None:
    """NaN, which is never better, never worse, and costs the rest of the night."""
    task = PullApart(folder)
    best = BestWeights(Scripted(task, [float("nan")]), name="x", every=1)
    with pytest.raises(ConfigError, match="diverged"):
        run(task, tmp_path, steps=3, callbacks=[best])
    with pytest.raises(ConfigError, match="1 step apart"):
        BestWeights(lambda: 0.0, name="x", every=0)
