"""What a teacher cannot teach is logged before any training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_model

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.store.runs import Run
from retrodistill.objectives.objective import parse_objective
from retrodistill.stages.training.building import load_student
from retrodistill.stages.training.checks import check_student, check_teacher

Capture = pytest.CaptureFixture[str]


def made_scores(queries: int = 20, docs: int = 10, *, scale: str = "unknown") -> Run:
    values = np.random.default_rng(0).normal(size=(queries, docs))
    return run_of(3 * values, scale=scale)


def run_of(values: np.ndarray, *, scale: str = "unknown") -> Run:
    queries, docs = values.shape
    run = Run.from_columns(
        np.repeat([f"q{i}" for i in range(queries)], docs).tolist(),
        [f"d{i}" for i in range(docs)] * queries,
        values.ravel(),
    )
    return replace(run, scale=scale)


def messages_of(objective: str, scores: Run, capsys: Capture) -> str:
    check_teacher(parse_objective(objective), scores, depth=8)
    return capsys.readouterr().err


def test_lists_that_are_nearly_one_hot_are_logged(capsys: Capture) -> None:
    """A temperature at which distillation is training on labels with a dearer name."""
    scores = made_scores()
    cold = parse_objective("listwise-kl(teacher_temperature=0.15) + contrastive")
    perplexities = check_teacher(cold, scores, depth=8)
    assert perplexities.keys() == {"listwise-kl"}
    assert perplexities["listwise-kl"] < 1.2
    message = capsys.readouterr().err
    assert "lists are one-hot" in message
    temperature = float(message.split("one-hot; ")[1].split(" would")[0])
    warm = parse_objective(f"listwise-kl(teacher_temperature={1.01 * temperature})")
    assert check_teacher(warm, scores, depth=8)["listwise-kl"] == pytest.approx(2, abs=0.05)
    assert "one-hot" not in capsys.readouterr().err
    sharp = f"listwise-kl(teacher_temperature={0.8 * temperature})"
    assert "nearly one-hot" in messages_of(sharp, scores, capsys)


def test_lists_that_are_nearly_flat_are_logged(capsys: Capture) -> None:
    """Probabilities as logits: a student that learns that all candidates are alike."""
    message = messages_of(
        "listwise-kl", run_of(made_scores().table["score"].to_numpy().reshape(20, 10) / 100), capsys
    )
    assert "nearly flat" in message
    temperature = float(message.split("flat; ")[1].split(" would")[0])
    assert 0 < temperature < 0.1
    assert "flat" not in messages_of("listwise-kl", made_scores(), capsys)


def test_losses_without_the_teacher_say_nothing(capsys: Capture) -> None:
    """A warning about a temperature that the loss does not have."""
    assert check_teacher(parse_objective("contrastive"), made_scores(), depth=8) == {}
    assert check_teacher(parse_objective("contrastive"), run_of(np.ones((3, 4))), depth=8) == {}
    assert not capsys.readouterr().err
    assert not messages_of("ranknet", made_scores(), capsys)


@pytest.mark.parametrize("scale", ["cosine", "probability", "percentiles", "unknown"])
def test_margins_of_a_bounded_teacher_are_logged(scale: str, capsys: Capture) -> None:
    """Margin-MSE on probabilities: inner products pressed into a band of width 1."""
    values = np.random.default_rng(0).random((5, 6))
    assert "bounded (from" in messages_of("margin-mse", run_of(values, scale=scale), capsys)
    for objective in ("margin-mse(scaled=true)", "margin-mse(teacher_temperature=0.1)"):
        assert not messages_of(objective, run_of(values, scale=scale), capsys)
    assert not messages_of("margin-mse", made_scores(scale="logit"), capsys)


def test_constant_lists_are_counted_and_refused_where_there_are_no_others(
    capsys: Capture,
) -> None:
    """A teacher that failed in silence: it gave each pair the same number."""
    values = np.random.default_rng(0).normal(size=(4, 5))
    values[1:3] = 0.5
    assert "2 of 4 lists are constant" in messages_of("listwise-kl", run_of(values), capsys)
    values[:] = np.arange(4.0)[:, None]
    with pytest.raises(DataError, match="in none of 4 lists .* listwise-kl, ranknet cannot learn"):
        messages_of("listwise-kl + ranknet + contrastive", run_of(values), capsys)
    with pytest.raises(DataError, match="in none of 4 lists"):
        messages_of("ranknet", run_of(values[:, :1]), capsys)


def test_ranks_are_no_scores(capsys: Capture) -> None:
    """A softmax over minus the rank, the same curve for every query."""
    ranks = -np.tile(np.arange(1.0, 7.0), (5, 1))
    assert "gives ranks" in messages_of("listwise-kl", run_of(ranks), capsys)
    assert "gives ranks" in messages_of("margin-mse", run_of(2 * ranks, scale="rank"), capsys)
    assert "ranks" not in messages_of("ranknet", run_of(ranks, scale="rank"), capsys)
    assert "ranks" not in messages_of("listwise-kl", made_scores(), capsys)


def test_scores_that_a_student_of_cosines_cannot_reach_are_named(
    tmp_path: Path, capsys: Capture
) -> None:
    """Margins of logits asked of cosines; a softmax at temperature 1 over numbers from -1 to 1."""

    def student_messages(objective: str, **settings: object) -> str:
        check_student(parse_objective(objective), model, TrainSettings(**settings))  # type: ignore[arg-type]
        return capsys.readouterr().err

    model = load_student(
        "bi-encoder", str(save_tiny_model(tmp_path / "unit", layers=1)), torch.device("cpu")
    )
    assert "margin-mse(student_temperature=0.05)" in student_messages("margin-mse")
    assert "listwise-kl: the student's scores are cosines" in student_messages(
        "listwise-kl + contrastive"
    )
    assert "contrastive(temperature=0.05)" in student_messages("contrastive(temperature=1)")
    for objective in (
        "margin-mse(student_temperature=0.1)",
        "margin-mse(scaled=true)",
        "listwise-kl(student_temperature=0.05) + contrastive",
        "embed-distill",
        "dse",
    ):
        assert "cosines" not in student_messages(objective)
    assert "cosines" not in student_messages("margin-mse", student_kind="late-interaction")
    model = load_student(
        "bi-encoder",
        str(save_tiny_model(tmp_path / "free", layers=1, normalise=False)),
        torch.device("cpu"),
    )
    assert "cosines" not in student_messages("margin-mse + listwise-kl")
    with pytest.raises(ConfigError, match="standardised-kl needs 3 candidates"):
        student_messages("standardised-kl", candidates_per_query=2)
