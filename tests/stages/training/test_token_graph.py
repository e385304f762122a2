"""Token relation graphs in training: the teacher's vectors of the student's own tokens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import models as fake_models
from fakes.encoders import save_tiny_late_interaction
from fakes.models import save_tiny_body, save_tiny_model

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.models.students.batches import TrainingText
from retrodistill.models.students.late_interaction import load_late_interaction
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import build_batches, build_task, start_student
from retrodistill.stages.training.material import gather_material
from retrodistill.stages.training.sources.states import StateSource

CPU = torch.device("cpu")
SKIPPED = ["blood", "cell", "disease", "heart"]
TINY = TrainSettings(
    objective="token-graph",
    student_kind="late-interaction",
    batch_size=8,
    max_steps=4,
    candidates_per_query=4,
    query_tokens=16,
    doc_tokens=32,
    batch_tokens=96,
    dropout=0.0,
    precision="float32",
    teacher_precision="float32",
)
EXPANDED = {"query_expansion": {"strategy": "fixed", "attend": False, "length": 12}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("graphs")
    return {
        "student": save_tiny_late_interaction(root / "student", skip=SKIPPED),
        "expanding": save_tiny_late_interaction(root / "expanding", skip=SKIPPED, **EXPANDED),
        "teacher": save_tiny_late_interaction(root / "teacher", seed=1, normalise=False),
        "prompted": save_tiny_late_interaction(root / "prompted", prompts={"query": "find: "}),
        "dense": save_tiny_model(root / "dense", layers=2),
    }


def seen_by(
    model: Path,
    teacher: Path,
    collection: Collection,
    settings: TrainSettings,
    items: list[Any] | None = None,
) -> tuple[Signals, Any, StateSource]:
    """Return the signals of one batch, its task after the backward pass, and the teacher."""
    terms, seen = parse_objective(settings.objective), []
    material = gather_material(collection, "train", None, terms, settings)
    states = StateSource(str(teacher))
    states.prepare(material, terms, settings)
    student = start_student(str(model), settings, collection, CPU)
    task = build_task(student, terms, settings, torch.float32, [states])
    items = items or list(material.schedule(task.model, replace(settings, max_steps=1)))

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    task(**build_batches(task.model, settings, collection, [states])(items))["loss"].backward()
    return seen[0], task, states


@pytest.mark.parametrize("student", ["student", "expanding"])
def test_the_teachers_vectors_are_of_the_students_tokens(
    student: str, models: dict[str, Path], collection: Collection
) -> None:
    """Vectors of the body without its projection, of padding, or expansion tokens left out."""
    signals, task, _ = seen_by(models[student], models["teacher"], collection, TINY)
    assert len(signals["token_ids"]) == TINY.batch_size
    teacher = load_late_interaction(str(models["teacher"]), CPU).eval()
    tokenizer = task.model.tokenizer
    skipped = set(tokenizer.convert_tokens_to_ids(SKIPPED))
    expanding = 0
    for row, ids in enumerate(signals["token_ids"]):
        real, scored = signals["token_mask"][row], signals["scored_tokens"][row]
        read = real | scored
        expanding += int((scored & ~real).sum())
        features = {"input_ids": ids[read][None], "attention_mask": real[read][None].long()}
        with torch.no_grad():
            expected = teacher(features, task="document")["token_embeddings"][0]
        actual = signals["teacher_token_vectors"][row, read]
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-3)
        left_out = set(ids[real & ~scored].tolist())
        assert left_out <= skipped
    assert (expanding > 0) == (student == "expanding")
    assert signals["teacher_token_vectors"].shape[-1] == signals["token_vectors"].shape[-1] == 16
    assert not signals["token_vectors"][~signals["scored_tokens"]].any()


def test_no_gradient_enters_the_teacher(models: dict[str, Path], collection: Collection) -> None:
    """A teacher that comes towards its student, or a projection of the student left untrained."""
    _, task, states = seen_by(models["student"], models["teacher"], collection, TINY)
    teacher = {id(weight) for weight in states._whole.parameters()}
    assert not teacher & {id(weight) for weight in task.parameters()}
    assert not any(weight.requires_grad for weight in states._whole.parameters())
    assert all(weight.grad.any() for name, weight in task.named_parameters() if "1.linear" in name)


def test_the_graph_reads_what_the_projection_gives(
    models: dict[str, Path], collection: Collection
) -> None:
    """Attention's relations by another name: they do not change with the projection."""
    values = {}
    for weight in (1.0, 3.0):
        settings = replace(TINY, objective="token-graph + attention-relations")
        terms = parse_objective(settings.objective)
        material = gather_material(collection, "train", None, terms, settings)
        states = StateSource(str(models["teacher"]))
        states.prepare(material, terms, settings)
        student = start_student(str(models["student"]), settings, collection, CPU)
        with torch.no_grad():
            student[1].linear.weight[0] *= weight
        task = build_task(student, terms, settings, torch.float32, [states])
        items = list(material.schedule(task.model, replace(settings, max_steps=1)))
        task(**build_batches(task.model, settings, collection, [states])(items))
        values[weight] = task.losses
    assert values[1.0]["token-graph"] != pytest.approx(values[3.0]["token-graph"], rel=1e-3)
    assert values[1.0]["attention-relations"] == pytest.approx(values[3.0]["attention-relations"])


def test_a_student_like_its_teacher_has_nothing_to_learn(
    models: dict[str, Path], collection: Collection
) -> None:
    """A loss that is not 0 at the teacher: other tokens, another side's mask, lengths."""
    _, task, _ = seen_by(models["expanding"], models["expanding"], collection, TINY)
    assert task.losses["token-graph"] < 1e-9


@pytest.mark.parametrize("changes", [{"batch_tokens": 4096}, {"cache_gradients": True}])
def test_chunks_do_not_change_the_gradient(
    changes: dict[str, Any], models: dict[str, Path], collection: Collection
) -> None:
    """Vectors of the wrong chunk, or captured twice where activations are recomputed."""
    gradients = []
    for settings in (TINY, replace(TINY, **changes)):
        _, task, _ = seen_by(models["student"], models["teacher"], collection, settings)
        gradients.append({n: p.grad for n, p in task.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_a_student_is_led_to_its_teachers_graph_by_texts_alone(
    models: dict[str, Path], collection: Collection, tmp_path: Path
) -> None:
    """A loss that stays where it was; or one that needs labels, or fails without any query."""
    out = train_student(
        collection,
        models["student"],
        tmp_path / "s",
        sources=[StateSource(str(models["teacher"]))],
        settings=replace(TINY, max_steps=40, learning_rate=3e-3, batch_size=3),
    )
    manifest = Manifest.read(out)
    losses = [each["token-graph"] for each in manifest.details["losses"]]
    assert losses[-1] < 0.5 * losses[0]
    assert "states" in manifest.inputs


@pytest.mark.parametrize("side", ["query", "document"])
def test_texts_of_one_side_are_a_batch(
    side: str, models: dict[str, Path], collection: Collection
) -> None:
    """A training that stops at the first batch without a document, or without a query."""
    items = [TrainingText(side, row) for row in range(3)]
    _, task, _ = seen_by(models["student"], models["teacher"], collection, TINY, items)
    assert task.losses["token-graph"] > 0


def test_a_teacher_of_other_prompts_is_logged(
    models: dict[str, Path], collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teacher that reads its tokens without the marker that it was trained with."""
    seen_by(models["student"], models["prompted"], collection, TINY)
    assert "was made for ('find: ', '')" in capsys.readouterr().err
    seen_by(models["student"], models["teacher"], collection, TINY)
    assert "was made for" not in capsys.readouterr().err


def test_what_has_no_graph_is_refused_before_training(
    models: dict[str, Path],
    collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Vectors of other tokens side by side, or a body's states taken for token vectors."""
    words = fake_models.vocabulary()
    special = len(fake_models.SPECIAL)
    shuffled = [*words[:special], *reversed(words[special:])]
    with monkeypatch.context() as patch:
        patch.setattr(fake_models, "vocabulary", lambda: shuffled)
        other = save_tiny_late_interaction(tmp_path / "other")
    cases = [
        (models["student"], other, {}, "reads other tokens"),
        (models["student"], save_tiny_body(tmp_path / "bare"), {}, "is not a late-interaction"),
        (
            models["dense"],
            models["teacher"],
            {"student_kind": "bi-encoder"},
            "has no scored_tokens, token_vectors: .* --student-kind late-interaction",
        ),
    ]
    for student, teacher, changes, message in cases:
        with pytest.raises(ConfigError, match=message):
            train_student(
                collection,
                student,
                tmp_path / "s",
                sources=[StateSource(str(teacher))],
                settings=replace(TINY, **changes),
            )
