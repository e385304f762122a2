"""SimCSE: two passes of each text that differ by dropout alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.encoders import save_tiny_late_interaction
from fakes.models import save_tiny_model

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import Collection
from retrodistill.models.students.tasks import Task
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import build_batches, build_task, load_student
from retrodistill.stages.training.material import gather_material

TINY = TrainSettings(
    objective="simcse",
    batch_size=8,
    max_steps=2,
    query_tokens=16,
    doc_tokens=32,
    precision="float32",
)


def prepared(
    collection: Collection, student: Path, settings: TrainSettings
) -> tuple[Task, dict[str, Any], list[Signals]]:
    """Return the task in training mode, a batch for it, and a list of the signals that it makes."""
    terms = parse_objective(settings.objective)
    material = gather_material(collection, "train", None, terms, settings)
    model = load_student("bi-encoder", str(student), torch.device("cpu"))
    task = build_task(model, terms, settings, torch.float32).train()
    examples: Any = list(material.schedule(model, settings))[: settings.batch_size]
    seen: list[Signals] = []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    return task, build_batches(model, settings, collection)(examples), seen


def test_the_second_pass_differs_by_dropout_alone(collection: Collection, tiny_model: Path) -> None:
    """One pass read twice: positives of cosine 1, and a loss that only spreads the texts out."""
    task, batch, seen = prepared(collection, tiny_model, TINY)
    task(**batch)
    task.eval()(**batch)
    training, evaluation = seen
    for side in ("query", "doc"):
        first, second = f"{side}_vectors", f"second_{side}_vectors"
        assert torch.equal(evaluation[first], evaluation[second])
        assert training[first].shape == training[second].shape
        assert not torch.allclose(training[first], training[second])
        assert not torch.allclose(training[second], evaluation[second])
    assert training["second_doc_vectors"].requires_grad


def test_cached_gradients_are_those_of_both_passes(
    collection: Collection, tiny_model: Path
) -> None:
    """A recomputed pass with another dropout than the one whose loss was taken."""
    gradients = []
    for cached in (False, True):
        settings = replace(TINY, cache_gradients=cached, batch_tokens=128, dims=(8,))
        task, batch, _ = prepared(collection, tiny_model, settings)
        torch.manual_seed(0)
        task(**batch)["loss"].backward()
        gradients.append([weight.grad for weight in task.parameters() if weight.grad is not None])
    for plain, cached_one in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, cached_one)


def test_a_student_without_two_readings_is_refused(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """Two equal passes, or constants that nothing trains."""
    for changes, message in (
        ({"dropout": 0.0}, r"differ by dropout.*Set --dropout 0\.1"),
        ({"freeze": "document"}, "Drop --freeze"),
        (
            {"student_kind": "late-interaction"},
            "has no doc_vectors, query_vectors, second_doc_vectors",
        ),
    ):
        start = tiny_model
        if "student_kind" in changes:
            start = save_tiny_late_interaction(tmp_path / "late")
        with pytest.raises(ConfigError, match=message):
            train_student(collection, start, tmp_path / "s", settings=replace(TINY, **changes))


def test_texts_alone_train(collection: Collection, tmp_path: Path) -> None:
    """A first stage that asks for labels or scores, or that trains as `contrastive`."""
    start = save_tiny_model(tmp_path / "start", layers=1)
    out = train_student(collection, start, tmp_path / "s", settings=TINY)
    before, after = (load_student("bi-encoder", str(f), torch.device("cpu")) for f in (start, out))
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert any(not torch.equal(left, right) for left, right in pairs)
    assert "contrastive" not in (out / "README.md").read_text().split("## ")[1]
