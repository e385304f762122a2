"""Train with a loss from outside the package: one file, and at most one line in a table."""

from pathlib import Path

import pytest
import torch

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import LOSSES
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.objectives.objective import parse_objective
from retrodistill.stages.training.building import load_student
from retrodistill.stages.training.checks import check_student, check_teacher
from retrodistill.train import main

PATH = "fakes.losses:huber_margin"


@pytest.fixture(params=[PATH, "huber-margin"])
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the loss: its path, or a name that one line of the table gives it."""
    name: str = request.param
    if ":" not in name:
        monkeypatch.setitem(LOSSES._table, name, PATH)
    return name


def test_a_loss_of_ones_own_trains_a_student(
    name: str,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A part of one's own that works in a unit test and not in the command."""
    scores.write(tmp_path / "run", inputs={"collection": collection.fingerprint})
    words = f"--data {collection.spec} --scores {tmp_path / 'run'} --student {tiny_model} "
    words += f"--objective {name}(tau=2) --max-steps 2 --batch-size 2 --doc-tokens 16 "
    assert main([*words.split(), "--out", str(tmp_path / "student")]) == 0
    assert f"{name}: at tau 2 the teacher spreads" in capsys.readouterr().err


def test_the_roles_of_its_settings_are_checked_whatever_they_are_called(
    name: str, scores: Run, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A temperature called `tau`, which no check looks at: one-hot lists that nobody hears of."""
    for setting in ("tau", "sharpness"):
        with pytest.raises(ConfigError, match=f"{setting} must be above 0"):
            parse_objective(f"{name}({setting}=0)")
    (term,) = parse_objective(f"{name}(tau=0.001)")
    assert check_teacher([term], scores, depth=8).keys() == {name}
    assert "lists are one-hot" in capsys.readouterr().err
    model = load_student("bi-encoder", str(tiny_model), torch.device("cpu"))
    check_student([term], model, TrainSettings())
    assert "and sharpness 1 is for unbounded scores" in capsys.readouterr().err


def test_a_function_that_declares_nothing_is_reported(
    scores: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain function with a setting `tau`, whose lists go unchecked without a word."""
    check_teacher(parse_objective("fakes.losses:undeclared"), scores, depth=8)
    assert "no setting is annotated as TeacherTemperature" in capsys.readouterr().err
    check_teacher(parse_objective("ranknet"), scores, depth=8)
    assert "annotated" not in capsys.readouterr().err
