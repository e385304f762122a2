"""Hidden states and attention of a live teacher: the same tokens, the same layers, no head."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import models as fake_models
from fakes.models import save_tiny_body, save_tiny_cross_encoder, save_tiny_model
from safetensors import safe_open

from retrodistill import train as verb
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import build_batches, build_task, start_student
from retrodistill.stages.training.material import Material, gather_material
from retrodistill.stages.training.sources.scores import ScoreSource
from retrodistill.stages.training.sources.states import StateSource, load_body

CPU = torch.device("cpu")
OBJECTIVE = "hidden-mse + attention-relations"
TINY = TrainSettings(
    objective=OBJECTIVE,
    batch_size=6,
    max_steps=4,
    candidates_per_query=4,
    query_tokens=16,
    doc_tokens=32,
    batch_tokens=96,
    dropout=0.0,
    precision="float32",
    teacher_precision="float32",
)
RANKING = replace(
    TINY, student_kind="cross-encoder", batch_size=3, objective=f"{OBJECTIVE} + one-vs-rest"
)
UNEVEN = Run.from_dict(
    {
        "q0": {"d0": 3.0, "d30": 2.0, "d31": 1.0, "d32": 0.5},
        "q1": {"d1": 3.0, "d30": 2.0},
        "q2": {"d2": 3.0, "d30": 2.0, "d33": 1.0},
    }
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("states")
    return {
        "student": save_tiny_model(root / "student", layers=2),
        "prompted": save_tiny_model(root / "prompted", layers=2, prompts={"query": "find: "}),
        "teacher": save_tiny_body(root / "teacher", layers=4, dimension=48, seed=1),
        "equal": save_tiny_body(root / "equal", layers=4, seed=1),
        "ranker": save_tiny_cross_encoder(root / "ranker", layers=4, dimension=48, seed=1),
        "small": save_tiny_cross_encoder(root / "small", layers=2),
    }


def prepared(
    model: Path, teacher: Path, collection: Collection, settings: TrainSettings
) -> tuple[Any, StateSource, Material, list[Any]]:
    """Return a task, its source of states, what it is trained on, and its sources."""
    terms = parse_objective(settings.objective)
    scores = UNEVEN if settings.student_kind == "cross-encoder" else None
    material = gather_material(collection, "train", scores, terms, settings)
    states = StateSource(str(teacher))
    states.prepare(material, terms, settings)
    sources = [states] if scores is None else [states, ScoreSource(scores)]
    student = start_student(str(model), settings, collection, CPU)
    task = build_task(student, terms, settings, torch.float32, sources)
    return task, states, material, sources


def seen_by(
    model: Path, teacher: Path, collection: Collection, settings: TrainSettings
) -> tuple[Signals, Any, list[dict[str, Any]]]:
    """Return the signals of one batch, its task after the backward pass, and its chunks."""
    task, _, material, sources = prepared(model, teacher, collection, settings)
    items = list(material.schedule(task.model, replace(settings, max_steps=1)))
    terms, seen = parse_objective(settings.objective), []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    batch = build_batches(task.model, settings, collection, sources)(items)
    task(**batch)["loss"].backward()
    chunks = batch["pairs"] if "pairs" in batch else [*batch["queries"], *batch["docs"]]
    return seen[0], task, chunks


@pytest.mark.parametrize(
    ("student", "teacher", "settings"),
    [("prompted", "teacher", TINY), ("small", "ranker", RANKING)],
)
def test_the_teacher_reads_the_students_tokens(
    student: str,
    teacher: str,
    settings: TrainSettings,
    models: dict[str, Path],
    collection: Collection,
) -> None:
    """States of other tokens, of padding, of another layer, or of a pair without its types."""
    signals, _, chunks = seen_by(models[student], models[teacher], collection, settings)
    assert len(chunks) > 1
    body, _ = load_body(str(models[teacher]))
    row = 0
    for chunk in chunks:
        features = chunk["features"]
        for ids, mask, types in zip(
            features["input_ids"],
            features["attention_mask"],
            features.get("token_type_ids", torch.zeros_like(features["input_ids"])),
            strict=True,
        ):
            real = mask.bool()
            with torch.no_grad():
                alone = body.eval()(
                    input_ids=ids[real][None],
                    token_type_ids=types[real][None],
                    output_hidden_states=True,
                ).hidden_states
            count = int(real.sum())
            assert signals["token_ids"][row, :count].tolist() == ids[real].tolist()
            assert signals["token_mask"][row].sum() == count
            for place, layer in enumerate((0, 2, 4)):
                actual = signals["teacher_states"][place, row, :count]
                torch.testing.assert_close(actual, alone[layer][0], atol=1e-4, rtol=1e-3)
            query = body.encoder.layer[3].attention.self.query(alone[3])[0]
            actual = signals["teacher_attention_vectors"][0, row, :count]
            torch.testing.assert_close(actual, query, atol=1e-4, rtol=1e-3)
            row += 1
    assert row == len(signals["token_ids"])
    assert signals["student_states"].shape == signals["teacher_states"].shape
    if settings is RANKING:
        assert signals["token_types"].any()


def test_no_gradient_enters_the_teacher(models: dict[str, Path], collection: Collection) -> None:
    """A teacher that comes towards its student, or a student that is not trained at all."""
    task, states, *_ = prepared(models["student"], models["teacher"], collection, TINY)
    before = {name: weight.clone() for name, weight in states.body.state_dict().items()}
    assert not any(weight.requires_grad for weight in states.body.parameters())
    own = {id(weight) for weight in task.parameters()}
    assert not own & {id(weight) for weight in states.body.parameters()}
    _, trained, _ = seen_by(models["student"], models["teacher"], collection, TINY)
    assert trained.tokens.projection.weight.grad.abs().sum() > 0
    body = trained.model[0].model
    for layer in body.encoder.layer:
        assert layer.output.dense.weight.grad.abs().sum() > 0
    assert body.embeddings.word_embeddings.weight.grad.abs().sum() > 0
    assert all(torch.equal(before[name], w) for name, w in states.body.state_dict().items())


@pytest.mark.parametrize("changes", [{"batch_tokens": 4096}, {"cache_gradients": True}])
@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_chunks_do_not_change_the_gradient(
    kind: str, changes: dict[str, Any], models: dict[str, Path], collection: Collection
) -> None:
    """States that are captured twice, or of the wrong chunk, where activations are recomputed."""
    settings = TINY if kind == "texts" else RANKING
    names = ("prompted", "teacher") if kind == "texts" else ("small", "ranker")
    gradients = []
    for each in (settings, replace(settings, **changes)):
        torch.manual_seed(0)
        _, task, _ = seen_by(*(models[name] for name in names), collection, each)
        gradients.append({n: p.grad for n, p in task.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_dimensions_read_the_tokens_once(models: dict[str, Path], collection: Collection) -> None:
    """States of every dimension's turn piled up, or a teacher that is run for each."""
    settings = replace(TINY, dims=(16, 8))
    signals, task, chunks = seen_by(models["student"], models["equal"], collection, settings)
    assert len(signals["token_ids"]) == sum(len(c["positions"]) for c in chunks)
    assert task.tokens.projection is None
    assert not task.tokens._read


def test_a_student_is_led_to_its_teacher_by_texts_alone(
    models: dict[str, Path], collection: Collection, tmp_path: Path
) -> None:
    """A loss that falls because the projection alone learns; a projection that is saved."""
    settings = replace(TINY, max_steps=60, learning_rate=3e-3, batch_size=12)
    out = train_student(
        collection,
        models["student"],
        tmp_path / "s",
        sources=[StateSource(str(models["teacher"]))],
        settings=settings,
    )
    manifest = Manifest.read(out)
    first, last = manifest.details["losses"][0], manifest.details["losses"][-1]
    assert last["hidden-mse"] < 0.8 * first["hidden-mse"]
    assert last["attention-relations"] < 0.8 * first["attention-relations"]
    assert manifest.details["documents"] == len(collection.docs)
    assert "states" in manifest.inputs
    with safe_open(out / "model.safetensors", "pt") as weights:
        assert not any("projection" in name or "tokens" in name for name in weights.keys())  # noqa: SIM118
    relations = [
        seen_by(start, models["teacher"], collection, TINY)[0] for start in (models["student"], out)
    ]
    (term,) = parse_objective("attention-relations")
    values = [bind([term])(signals)["attention-relations"].item() for signals in relations]
    assert values[1] < 0.8 * values[0]


def test_a_student_like_its_teacher_has_nothing_to_learn(
    collection: Collection, models: dict[str, Path]
) -> None:
    """A loss that is not 0 at the teacher: other tokens, other types, or another layer."""
    settings = replace(RANKING, objective=OBJECTIVE)
    _, task, _ = seen_by(models["ranker"], models["ranker"], collection, settings)
    assert max(task.losses.values()) < 1e-9


def test_two_processes_have_the_loss_of_one(
    models: dict[str, Path], collection: Collection
) -> None:
    """A mean over tokens, at which the process of the longer texts counts like the other.

    Each text weighs the same, so two halves of a batch have the mean of their losses as its own.
    """
    task, _, material, sources = prepared(models["student"], models["teacher"], collection, TINY)
    items = list(material.schedule(task.model, replace(TINY, max_steps=1, batch_size=8)))
    collate = build_batches(task.model, TINY, collection, sources)

    def losses(part: list[Any]) -> torch.Tensor:
        task(**collate(part))
        return torch.tensor([task.losses[name] for name in ("hidden-mse", "attention-relations")])

    halves = torch.stack([losses(items[:4]), losses(items[4:])]).mean(0)
    torch.testing.assert_close(halves, losses(items), rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused_before_training(
    models: dict[str, Path],
    collection: Collection,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """States of another tokenizer's tokens, whose loss falls as if they were the same."""
    words = fake_models.vocabulary()
    special = len(fake_models.SPECIAL)
    shuffled = [*words[:special], *reversed(words[special:])]
    with monkeypatch.context() as patch:
        patch.setattr(fake_models, "vocabulary", lambda: shuffled)
        other = save_tiny_body(tmp_path / "other", layers=4)
    bare = tmp_path / "bare"
    shutil.copytree(models["teacher"], bare)
    from safetensors.torch import load_file, save_file

    weights = load_file(bare / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.3" not in name}
    save_file(kept, bare / "model.safetensors", metadata={"format": "pt"})
    cases = [
        (other, {}, "reads other tokens"),
        (models["teacher"], {"prune_vocabulary": True}, "reads other tokens"),
        (bare, {}, "lacks weights of its body"),
        (models["teacher"], {"states_layers": (1, 2, 3, 4)}, "--states-layers"),
        (models["teacher"], {"states_layers": (5,)}, "--states-layers"),
        (models["teacher"], {"freeze": "document"}, "the student has 2"),
        (models["teacher"], {"objective": "attention-relations(heads=5)"}, "multiple of heads=5"),
    ]
    for teacher, changes, message in cases:
        with pytest.raises(ConfigError, match=message):
            train_student(
                collection,
                models["student"],
                tmp_path / "s",
                sources=[StateSource(str(teacher))],
                settings=replace(TINY, **changes),
            )
    base = f"--data beir:{folder} --student {models['student']} --out {tmp_path / 's'}".split()
    assert verb.main([*base, "--objective", "hidden-mse"]) == 2
    assert "give --states" in capsys.readouterr().err
    teacher = ["--states", str(models["teacher"])]
    assert verb.main([*base, *teacher, "--objective", "contrastive"]) == 2
    assert "add a loss such as hidden-mse" in capsys.readouterr().err
    sparse = [*base, *teacher, "--objective", "hidden-mse", "--student-kind", "causal-reranker"]
    assert verb.main(sparse) == 2
    assert capsys.readouterr().err
