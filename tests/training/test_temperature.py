"""The teacher's softness is told before a training is paid for."""

import numpy as np
import pytest

from retrodistill.objective import parse_objective
from retrodistill.store.runs import Run
from retrodistill.training.temperature import teacher_perplexity


def made_scores(queries: int = 20, docs: int = 10) -> Run:
    rng = np.random.default_rng(0)
    return Run.from_columns(
        np.repeat([f"q{i}" for i in range(queries)], docs).tolist(),
        [f"d{i}" for i in range(docs)] * queries,
        rng.normal(size=queries * docs),
    )


def test_lists_that_are_nearly_one_hot_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A temperature at which distillation is training on labels with a dearer name."""
    scores = made_scores()
    cold = parse_objective("listwise-kl(teacher_temperature=0.05) + contrastive")
    found = teacher_perplexity(cold, scores, first=8)
    assert found.keys() == {"listwise-kl"}
    assert found["listwise-kl"] < 1.5
    said = capsys.readouterr().err
    wanted = float(said.split("one-hot; ")[1].split(" would")[0])
    warm = parse_objective(f"listwise-kl(teacher_temperature={wanted})")
    assert teacher_perplexity(warm, scores, first=8)["listwise-kl"] == pytest.approx(2, abs=0.02)
    assert "one-hot" not in capsys.readouterr().err


def test_losses_without_a_distribution_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning about a temperature that the loss does not have."""
    assert teacher_perplexity(parse_objective("contrastive"), made_scores(), first=8) == {}
    assert not capsys.readouterr().err
