"""Shares of the gradient: what they are, and that measuring them changes nothing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from safetensors.torch import load_file

from retrodistill.base.config import TrainSettings
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.tasks import Task
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.training import balance, train_student
from retrodistill.stages.training.balance import check_balance, gradient_norms
from retrodistill.stages.training.building import build_batches, build_task, load_student
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.examples import Schedule
from retrodistill.stages.training.sources.scores import ScoreSource

TEACHER = [ScoreSource(Run.from_dict({"q0": {"d0": 1.0}}))]
"""Gives the scores of the examples themselves."""


CPU = torch.device("cpu")
SHORT = TrainSettings(
    candidates_per_query=4,
    batch_size=4,
    max_steps=2,
    query_tokens=16,
    doc_tokens=32,
    batch_tokens=64,
    dropout=0.1,
    learning_rate=1e-3,
    precision="float32",
)
STUDENTS: dict[str, Callable[[Path], Path]] = {
    "bi-encoder": lambda folder: save_tiny_model(folder, layers=1),
    "sparse": save_tiny_sparse,
    "late-interaction": save_tiny_late_interaction,
    "cross-encoder": save_tiny_cross_encoder,
}


@pytest.fixture(scope="module")
def schedule(collection: Collection, scores: Run) -> Schedule:
    return Schedule(gather(collection, "train", scores, pool=16), 16, per_query=4, seed=0)


def made(
    kind: str, folder: Path, collection: Collection, objective: str, **changes: object
) -> tuple[Task, Callable[..., dict]]:
    settings = dataclasses.replace(SHORT, student_kind=kind, **changes)  # type: ignore[arg-type]
    model = load_student(kind, str(STUDENTS[kind](folder)), CPU)
    task = build_task(model, parse_objective(objective), settings, torch.float32)
    return task, build_batches(model, settings, collection, TEACHER)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", STUDENTS)
def test_a_training_is_the_same_with_and_without_the_measurement(
    kind: str,
    cached: bool,
    collection: Collection,
    scores: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A draw of dropout, a step of an optimizer, or a gradient that a measurement leaves behind."""
    start = STUDENTS[kind](tmp_path)
    settings = dataclasses.replace(
        SHORT, student_kind=kind, cache_gradients=cached, objective="listwise-kl + contrastive"
    )
    weights, losses = [], []
    for name in ("measured", "plain"):
        if name == "plain":
            monkeypatch.setattr(balance, "check_balance", lambda *_: {})
        out = train_student(collection, start, tmp_path / name, sources=[scores], settings=settings)
        weights.append({p.name: load_file(p) for p in sorted(out.rglob("*.safetensors"))})
        details = Manifest.read(out).details
        losses.append(details["losses"])
        assert details["gradient_shares"].keys() == (
            {"listwise-kl", "contrastive"} if name == "measured" else set()
        )
    assert losses[0] == losses[1]
    for file, tensors in weights[0].items():
        assert all(torch.equal(tensor, weights[1][file][key]) for key, tensor in tensors.items())


def test_a_task_is_left_as_it_was(
    collection: Collection, schedule: Schedule, tmp_path: Path
) -> None:
    """A body that stays in evaluation mode, statistics of a BatchNorm, a random number drawn."""
    task, collate = made("bi-encoder", tmp_path, collection, "listwise-kl + contrastive")
    task.model.append(_Normed())
    task.train()
    task.model[0].eval()  # as a frozen part may be
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    modes = [module.training for module in task.modules()]
    state = torch.get_rng_state()
    shares = check_balance(task, parse_objective("listwise-kl + contrastive"), schedule, collate, 4)
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in task.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.state_dict().items())
    assert all(weight.grad is None for weight in task.parameters())
    assert task.probe is None
    assert task.losses == {}


class _Normed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(32)

    def forward(self, features: dict) -> dict:
        return features | {"sentence_embedding": self.norm(features["sentence_embedding"])}


def test_norms_are_those_of_the_vectors_gradient(
    collection: Collection, schedule: Schedule, tmp_path: Path
) -> None:
    """Shares of values instead of gradients, or of one of two sides."""
    objective = "0.5*listwise-kl(student_temperature=0.05) + contrastive"
    task, collate = made("bi-encoder", tmp_path, collection, objective)
    batch = collate([schedule[index] for index in range(4)])
    norms = gradient_norms(task, [batch])
    seen: list[Signals] = []
    terms = bind(parse_objective(objective))
    task._objective = lambda signals: seen.append(signals) or terms(signals)
    task.eval()(**batch)
    (signals,) = seen
    sides = [signals[name].detach().requires_grad_() for name in ("query_vectors", "doc_vectors")]
    scores = sides[0] @ sides[1].T
    signals |= {
        "student_scores": scores.gather(1, batch["candidates"]),
        "batch_scores": scores,
    }
    for name, value in terms(signals).items():
        gradients = torch.autograd.grad(value, sides, retain_graph=True)
        expected = torch.cat([gradient.ravel() for gradient in gradients]).norm()
        assert norms[name] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_term_that_vanishes_is_named_with_the_weight_that_balances_it(
    kind: str,
    collection: Collection,
    schedule: Schedule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A distillation that is InfoNCE: 1 : 400, and nobody sees it."""
    task, collate = made(kind, tmp_path, collection, "0.0001*listwise-kl + contrastive")
    terms = parse_objective("0.0001*listwise-kl + contrastive")
    shares = check_balance(task, terms, schedule, collate, 4)
    assert shares["listwise-kl"] < 1 / 30
    text = capsys.readouterr().err
    assert "gradient before the first step: listwise-kl 0." in text
    assert "contrastive is trained nearly alone" in text
    advice = text.split("nearly alone. ")[1].split(" would balance")[0]
    task, collate = made(kind, tmp_path / "again", collection, f"{advice} + contrastive")
    shares = check_balance(task, parse_objective(f"{advice} + contrastive"), schedule, collate, 4)
    assert shares["listwise-kl"] == pytest.approx(0.5, abs=0.01)
    assert "nearly alone" not in capsys.readouterr().err


def test_a_term_without_any_gradient_is_named(
    collection: Collection, schedule: Schedule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A term that is 0 in every batch of a training, beside one that is not."""
    objective = "listwise-kl + contrastive(own_negatives=false)"
    task, collate = made("bi-encoder", tmp_path, collection, objective)
    shares = check_balance(task, parse_objective(objective), schedule, collate, 1)
    assert shares == {"listwise-kl": 1.0, "contrastive": 0.0}
    assert "contrastive has no gradient in any of 4 batches" in capsys.readouterr().err


def test_a_frozen_tower_has_no_share(
    collection: Collection, schedule: Schedule, tmp_path: Path
) -> None:
    """The gradient of documents that do not move, counted for a term."""
    task, collate = made("bi-encoder", tmp_path, collection, "listwise-kl")
    batch = collate([schedule[index] for index in range(4)])
    whole = gradient_norms(task, [batch])
    task.model.requires_grad_(False)
    assert gradient_norms(task, [batch]) == {"listwise-kl": 0.0}
    task.model.requires_grad_(True)
    assert gradient_norms(task, [batch]) == whole
    assert whole["listwise-kl"] > 0


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_launcher_s_autocast_does_not_reach_the_scores(
    kind: str, collection: Collection, schedule: Schedule, tmp_path: Path
) -> None:
    """`accelerate launch --mixed_precision bf16`: cosines near 1 in steps of 0.004."""
    task, collate = made(kind, tmp_path, collection, "listwise-kl + contrastive")
    seen: list[Signals] = []
    objective = task._objective
    task._objective = lambda signals: seen.append(signals) or objective(signals)
    batch = collate([schedule[index] for index in range(4)])
    expected = task.eval()(**batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(**batch)["loss"]
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()
    assert {s[name].dtype for s in seen for name in ("student_scores", "batch_scores")} == {
        torch.float32
    }
