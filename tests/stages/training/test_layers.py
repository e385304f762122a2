"""Scores by each layer's vectors: of the student, of live and of joint teachers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.encoders import save_tiny_late_interaction
from fakes.models import save_tiny_model
from sentence_transformers import SentenceTransformer

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder, load_bi_encoder
from retrodistill.models.students.layer_vectors import encode_layers, layer_vectors
from retrodistill.models.students.towers import side_modules
from retrodistill.models.students.transforms import keep_layers
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.objectives.recipes import load_recipe
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import start_student
from retrodistill.stages.training.plan import plan_training
from retrodistill.stages.training.sources.joint import JointTeacher
from retrodistill.stages.training.sources.scores import ScoreSource
from retrodistill.stages.training.sources.teacher import TeacherSource

LIVE = "contrastive + layer-kl(student_temperature=0.05,teacher_temperature=0.05)"
TINY = TrainSettings(
    objective=LIVE,
    candidates_per_query=4,
    batch_size=4,
    max_steps=3,
    query_tokens=16,
    doc_tokens=32,
    teacher_tokens=48,
    dropout=0.0,
    precision="float32",
    teacher_precision="float32",
)
TEXTS = ["blood pressure and diet", "how high may it be in a small animal", "milk"]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of four layers, another width, and prompts of its own."""
    folder = tmp_path_factory.mktemp("deep")
    prompts = {"query": "find: ", "document": "read: "}
    return save_tiny_model(folder, layers=4, dimension=48, prompts=prompts, seed=2)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of three layers."""
    return save_tiny_model(tmp_path_factory.mktemp("student"), layers=3)


def signals_of(plan: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Return the signals of the first batch, and its rows."""
    seen: list[Any] = []
    objective = plan.task._objective
    plan.task.eval()
    plan.task._objective = lambda signals: (seen.append(signals), objective(signals))[1]
    inputs = plan.collate([plan.schedule[row] for row in range(4)])
    plan.task(**inputs)
    plan.task._objective = objective
    return seen[0], inputs["batch"]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_layer_s_vectors_are_those_of_the_model_cut_behind_it(pooling: Any, deep: Path) -> None:
    """Embeddings counted as the first layer, padding pooled, or states without their pooling."""
    settings = TrainSettings(pooling=pooling)
    empty: Any = None
    model = start_student(str(deep), settings, empty, torch.device("cpu")).eval()
    features = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    vectors = layer_vectors(side_modules(model, "query"), dict(features), torch.float32)
    assert vectors.shape == (3, 4, 48)
    for layer in range(4):
        cut = keep_layers(model, tuple(range(layer + 1))).eval()
        expected = cut.encode(TEXTS, convert_to_tensor=True)
        torch.testing.assert_close(vectors[:, layer], expected, rtol=1e-4, atol=1e-5)
    assert not model[0].model.config.output_hidden_states


def test_a_large_batch_without_gradients_has_layers_too(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that stops at 512 tokens, where linear layers run as one operation."""
    faster = "retrodistill.models.inference.fused.one_operation_is_faster"
    monkeypatch.setattr(faster, lambda dtype: True)
    encoder = DenseEncoder(deep, precision="float32")
    texts = [f"heart disease {number}" for number in range(120)]
    layers = encode_layers(encoder, texts, "document")
    alone = encode_layers(encoder, texts[:1], "document")
    np.testing.assert_allclose(layers[:1], alone, atol=1e-4)


def test_the_student_s_last_layer_is_its_scores(
    collection: Collection, scores: Run, student: Path, deep: Path, tmp_path: Path
) -> None:
    """Layers of another text, side or order: scores that are not of the batch's documents."""
    plan = plan_training(
        collection,
        student,
        tmp_path / "s",
        sources=[scores, TeacherSource(f"bi-encoder:{deep}")],
        settings=replace(TINY, dims=(8,)),
    )
    signals, batch = signals_of(plan)
    assert signals["layer_scores"].shape == (3, 4, len(batch.docs))
    torch.testing.assert_close(signals["layer_scores"][-1], signals["batch_scores"])
    queries = collection.queries.full_texts(batch.queries)
    docs = collection.docs.full_texts(batch.docs)
    cut = keep_layers(load_bi_encoder(str(student), torch.device("cpu")), (0, 1)).eval()
    cut.max_seq_length = 32
    expected = cut.encode(queries) @ cut.encode(docs).T
    np.testing.assert_allclose(signals["layer_scores"][1].detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["live", "labelled", "joint"])
def test_a_teacher_s_layers_are_those_of_its_cut_models(
    kind: str, collection: Collection, scores: Run, student: Path, deep: Path, tmp_path: Path
) -> None:
    """The student's tokens or prompts, one layer's scores repeated, columns in another order."""
    spec = f"bi-encoder:{deep}"
    name, source = {
        "live": ("teacher_layer_scores", TeacherSource(spec)),
        "labelled": ("old.layer_scores", TeacherSource(spec, label="old")),
        "joint": ("joint.layer_scores", JointTeacher(spec)),
    }[kind]
    alias = "" if kind == "live" else f"(teacher_layer_scores={name})"
    plan = plan_training(
        collection,
        student,
        tmp_path / "s",
        sources=[scores, source],
        settings=replace(TINY, objective=f"contrastive + layer-kl{alias}", query_prompt="heart "),
    )
    signals, batch = signals_of(plan)
    assert signals[name].requires_grad == (kind == "joint")
    queries = collection.queries.full_texts(batch.queries)
    docs = collection.docs.full_texts(batch.docs)
    whole = load_bi_encoder(str(deep), torch.device("cpu"))
    for layer, ours in enumerate(signals[name].detach()):
        model = keep_layers(whole, tuple(range(layer + 1))).eval()
        model.max_seq_length = 48
        expected = model.encode_query(queries) @ model.encode_document(docs).T
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert len({tuple(layer.flatten().tolist()) for layer in signals[name].detach()}) == 4


def test_layers_shape_the_student(
    collection: Collection, scores: Run, student: Path, deep: Path, tmp_path: Path
) -> None:
    """A term without effect: LEAD that is its cross-entropy and its last divergence."""
    prints = set()
    last = "batch-kl(student_temperature=0.05,teacher_temperature=0.05)"
    for number, objective in enumerate((f"{LIVE} + {last}", f"contrastive + {last}")):
        out = train_student(
            collection,
            student,
            tmp_path / f"{number}",
            sources=[scores, TeacherSource(f"bi-encoder:{deep}")],
            settings=replace(TINY, objective=objective, cache_gradients=True),
        )
        prints.add(Manifest.read(out).fingerprint)
        assert SentenceTransformer(str(out), device="cpu").encode("a").shape == (32,)
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("name", "neighbours"),
    [
        (
            "lead",
            [
                "contrastive(temperature=0.05)",
                "batch-kl(teacher_batch_scores=joint.batch_scores,teacher_temperature=0.05)",
            ],
        ),
        (
            "rocketqav2",
            [
                "contrastive",
                "listwise-kl(student_temperature=0.05)",
                "listwise-kl(teacher_scores=joint.scores,student_temperature=0.05)",
            ],
        ),
    ],
)
def test_the_recipes_are_not_what_they_would_silently_become(
    name: str,
    neighbours: list[str],
    collection: Collection,
    scores: Run,
    student: Path,
    deep: Path,
    tmp_path: Path,
) -> None:
    """LEAD as its cross-entropy or last divergence, RocketQAv2 as plain KL, stored or joint.

    And divergences that train one model of the two, or a supervised term that trains the other.
    """
    objective = load_recipe(name).settings["objective"]
    plan = plan_training(
        collection,
        student,
        tmp_path / "s",
        sources=[scores, JointTeacher(f"bi-encoder:{deep}")],
        settings=replace(TINY, objective=objective),
    )
    signals, batch = signals_of(plan)
    values = bind(parse_objective(objective))(signals)
    models = plan.task.model, plan.task.joint
    for key, value in values.items():
        trained = []
        for model in models:
            parameters = list(model.parameters())
            entered = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            trained.append(any(each is not None and bool(each.any()) for each in entered))
        assert trained == [not key.startswith("joint."), key != "contrastive"]
    stored = ScoreSource(scores).of(batch, None)
    for other in neighbours:
        single = bind(parse_objective(other))(Signals(**{**signals, **stored})).values()
        total, alone = (sum(each.item() for each in found) for found in (values.values(), single))
        assert total != pytest.approx(alone, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({}, "late-interaction", "teacher_layer_scores, which this --teacher does not give"),
        ({"freeze": "document"}, "bi-encoder", "come from documents that are encoded"),
        ({"doc_keep_layers": (0, 1)}, "bi-encoder", "towers have 2 and 3 layers"),
        ({"student_kind": "sparse"}, "bi-encoder", "whose token vectors are pooled"),
        ({"student_kind": "late-interaction"}, "bi-encoder", "has no layer_scores"),
        ({"keep_layers": (0,)}, "bi-encoder", "models of two layers and more"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(
    changes: dict[str, Any],
    spec: str,
    message: str,
    collection: Collection,
    scores: Run,
    student: Path,
    deep: Path,
    tmp_path: Path,
) -> None:
    """A traceback of shapes in the first step, or layers of another tower."""
    from fakes.encoders import save_tiny_sparse

    start = str(student)
    if changes.get("student_kind") == "sparse":
        start = str(save_tiny_sparse(tmp_path / "sparse"))
    if "late-interaction" in (spec, changes.get("student_kind")):
        late = str(save_tiny_late_interaction(tmp_path / "late"))
        start = late if "student_kind" in changes else start
    if "doc_keep_layers" in changes:
        changes = changes | {"doc_student": start}
    teacher = f"{spec}:{deep}" if spec == "bi-encoder" else f"{spec}:{late}"
    with pytest.raises(ConfigError, match=message):
        plan_training(
            collection,
            start,
            tmp_path / "s",
            sources=[scores, TeacherSource(teacher)],
            settings=replace(TINY, **changes),
        )


@pytest.mark.parametrize("label", ["joint", "student"])
def test_the_labels_of_trained_models_are_reserved(label: str) -> None:
    """A frozen teacher that a term takes for the one that it trains."""
    with pytest.raises(ConfigError, match="Give another label"):
        TeacherSource("bi-encoder:any", label=label)
