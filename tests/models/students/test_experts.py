"""A head of experts: it starts as nothing, routes by the text, and is saved as plain modules."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_model
from sentence_transformers import SentenceTransformer

from retrodistill.base.config import TrainConfig, TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import Collection
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.experts import (
    EXPERT_WIDTH,
    GatedMap,
    expert_layers,
    plain_experts,
    trained_experts,
    with_experts,
)
from retrodistill.stages.exporting.layout import differences, read_layout
from retrodistill.stages.training import train_student
from retrodistill.stages.training.sources.vectors import VectorSource

TEXTS = ["heart disease", "sleep and stress help", "insulin", "a cell of the liver"]
TINY = TrainSettings(
    objective="leaf",
    experts=3,
    batch_size=12,
    max_steps=40,
    query_tokens=16,
    doc_tokens=32,
    dropout=0.0,
    learning_rate=3e-3,
    precision="float32",
)


@pytest.fixture(scope="module", params=[True, False], ids=["cosine", "dot"])
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    return save_tiny_model(folder, layers=2, normalise=request.param)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("teacher"), layers=3, seed=1)


def moved(model: SentenceTransformer) -> SentenceTransformer:
    """Return the model with experts that give something."""
    with torch.no_grad():
        model[-2 if "Normalize" in str(model[-1]) else -1].linear.weight += 0.3
    return model


def test_it_starts_with_the_models_own_vectors(start: Path) -> None:
    """A random head, from which a good student has to find back first."""
    model = SentenceTransformer(str(start), device="cpu")
    expected = model.encode(TEXTS)
    headed = with_experts(model, 3)
    np.testing.assert_allclose(headed.encode(TEXTS), expected, atol=1e-6)
    assert not np.allclose(moved(headed).encode(TEXTS), expected, atol=1e-2)
    np.testing.assert_array_equal(model.encode(TEXTS), expected)


def test_it_is_the_mixture_that_it_says(start: Path) -> None:
    """A gate for each output, half of the experts, or a softmax in the place of sigmoids."""
    model = SentenceTransformer(str(start), device="cpu")
    vectors = torch.from_numpy(model.encode(TEXTS))
    headed = moved(with_experts(model, 3, seed=5))
    gated, mix = expert_layers(headed)
    expected = vectors @ mix.weight[:, :32].T
    for number in range(3):
        back = mix.weight[:, 32 + number * EXPERT_WIDTH :][:, :EXPERT_WIDTH]
        gate = torch.sigmoid(vectors @ gated.gates[number] + gated.biases[number])
        expected = expected + gate[:, None] * (vectors @ gated.up[number].T @ back.T)
    if "Normalize" in str(headed[-1]):
        expected = torch.nn.functional.normalize(expected, dim=-1)
    actual = torch.from_numpy(headed.encode(TEXTS))
    torch.testing.assert_close(actual, expected.detach(), atol=1e-5, rtol=1e-4)


def test_plain_modules_give_the_same_and_come_back(start: Path, tmp_path: Path) -> None:
    """A student that only this package loads; one that is trained further as a layer of GLU."""
    headed = moved(with_experts(SentenceTransformer(str(start), device="cpu"), 3))
    plain = plain_experts(headed)
    plain.save(str(tmp_path / "m"), create_model_card=False)
    loaded = SentenceTransformer(str(tmp_path / "m"), device="cpu", trust_remote_code=False)
    np.testing.assert_allclose(loaded.encode(TEXTS), headed.encode(TEXTS), atol=1e-5)
    assert not any(isinstance(module, GatedMap) for module in loaded.modules())
    unserved = [each for each in differences(read_layout(tmp_path / "m")) if "activation" in each]
    assert "GLU" in unserved[0]
    again = trained_experts(loaded)
    assert [type(layer) for layer in expert_layers(again)] == [GatedMap, torch.nn.Linear]
    assert expert_layers(again)[0].experts == 3
    for name, weight in expert_layers(headed)[0].named_parameters():
        assert torch.equal(weight, dict(expert_layers(again)[0].named_parameters())[name])


def test_a_layer_of_glu_is_no_head_of_experts(start: Path) -> None:
    """Somebody's gated layer whose gates are made one, and its vectors changed."""
    from sentence_transformers.base.modules import Dense

    model = SentenceTransformer(str(start), device="cpu")
    size = 2 * (32 + EXPERT_WIDTH)
    model.append(Dense(32, size, activation_function=torch.nn.GLU()))
    assert trained_experts(model) is model
    assert plain_experts(model) is model
    assert expert_layers(model) == []


@pytest.mark.parametrize("lora", [0, 4])
def test_a_trained_student_routes_texts_apart_and_loads_anywhere(
    lora: int, start: Path, teacher: Path, collection: Collection, tmp_path: Path
) -> None:
    """Gates that are one number for all texts: a linear layer. Or a head that adapters freeze."""
    if lora:
        pytest.importorskip("peft")
    sources = [VectorSource(DenseEncoder(teacher, precision="float32"))]
    settings = replace(TINY, lora_rank=lora)
    out = train_student(collection, start, tmp_path / "s", sources=sources, settings=settings)
    student = SentenceTransformer(str(out), device="cpu", trust_remote_code=False)
    np.testing.assert_allclose(
        DenseEncoder(out, precision="float32").encode_docs(TEXTS), student.encode(TEXTS), atol=1e-5
    )
    gated, mix = expert_layers(trained_experts(student))
    assert mix.weight[:, 32:].abs().max() > 1e-3
    pooled = torch.from_numpy(SentenceTransformer(str(start), device="cpu").encode(TEXTS))
    gates = torch.sigmoid(pooled @ gated.gates.T + gated.biases)  # (texts, experts)
    assert (gates.amax(0) - gates.amin(0)).min() > 0.01
    assert (gates.amax(1) - gates.amin(1)).min() > 0.01
    further = train_student(
        collection, out, tmp_path / "t", sources=sources, settings=replace(TINY, experts=None)
    )
    again = expert_layers(trained_experts(SentenceTransformer(str(further), device="cpu")))
    assert isinstance(again[0], GatedMap)


def test_what_cannot_have_such_a_head_is_refused(start: Path) -> None:
    """A head on one tower of two, whose documents were encoded without it."""
    model = with_experts(SentenceTransformer(str(start), device="cpu"), 2)
    with pytest.raises(ConfigError, match="already"):
        with_experts(model, 2)
    with pytest.raises(ConfigError, match="at least 2"):
        with_experts(model, 1)
    with pytest.raises(ConfigError, match="experts must be at least 2"):
        replace(TINY, experts=1)
    with pytest.raises(ConfigError, match="omit --freeze"):
        TrainConfig(data="beir:x", student="s", out=Path("o"), experts=2, freeze="document")
