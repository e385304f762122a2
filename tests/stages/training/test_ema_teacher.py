"""The average of the student's weights as its teacher."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.corpus import save_small_collection
from fakes.encoders import save_tiny_late_interaction
from fakes.models import save_tiny_body, save_tiny_cross_encoder, save_tiny_model
from fakes.processes import in_two_processes
from safetensors.torch import load_file

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.tasks import Task
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.training import train_student
from retrodistill.stages.training.averaging import FOLLOWER
from retrodistill.stages.training.building import build_batches, build_task, load_student
from retrodistill.stages.training.material import gather_material
from retrodistill.stages.training.plan import plan_training
from retrodistill.stages.training.resuming import checkpoint_folder
from retrodistill.stages.training.sources.ema import EmaTeacher
from retrodistill.stages.training.sources.joint import JointTeacher
from retrodistill.stages.training.sources.states import StateSource

KL = "batch-kl(teacher_batch_scores=ema.batch_scores,teacher_temperature=0.025)"
OBJECTIVE = f"contrastive + {KL}"
TINY = TrainSettings(
    objective=OBJECTIVE,
    ema=0.9,
    batch_size=4,
    max_steps=4,
    query_tokens=16,
    doc_tokens=32,
    learning_rate=1e-3,
    precision="float32",
)


def prepared(
    collection: Collection, student: Path, settings: TrainSettings = TINY, kind: str = "bi-encoder"
) -> tuple[Task, EmaTeacher, Any, Any, list[Signals]]:
    """Return the task, its teacher, examples, what collates them, and the signals it makes."""
    terms = parse_objective(settings.objective)
    material = gather_material(collection, "train", None, terms, settings)
    source = EmaTeacher(0.9)
    source.prepare(material, terms, settings)
    model = load_student(kind, str(student), torch.device("cpu"))
    task = build_task(model, terms, settings, torch.float32, [source]).train()
    seen: list[Signals] = []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    examples = list(material.schedule(model, settings))
    return task, source, examples, build_batches(model, settings, collection, [source]), seen


@pytest.mark.parametrize("kind", ["bi-encoder", "late-interaction"])
def test_the_teacher_is_the_student_before_the_first_step_and_has_no_gradient(
    kind: str, collection: Collection, tmp_path: Path
) -> None:
    """A teacher with dropout, with columns of its own, in the student's state, or trained."""
    save = save_tiny_model if kind == "bi-encoder" else save_tiny_late_interaction
    settings = replace(TINY, student_kind=kind)
    task, _, examples, collate, seen = prepared(collection, save(tmp_path), settings, kind)
    names = set(task.state_dict())
    assert not any("ema" in name or "copy" in name for name in names)
    task(**collate(examples[:4]))["loss"].backward()
    task.eval()(**collate(examples[:4]))
    training, evaluation = seen
    for mine, theirs in (("student_scores", "ema.scores"), ("batch_scores", "ema.batch_scores")):
        real = evaluation["mask"] if mine == "student_scores" else ...
        torch.testing.assert_close(evaluation[mine][real], evaluation[theirs][real])
        assert torch.equal(training[theirs], evaluation[theirs])
        assert not torch.allclose(training[mine], training[theirs])
        assert not training[theirs].requires_grad
    assert all(weight.grad is None for weight in task.live[0]._copy.parameters())


def test_the_teacher_follows_the_student_after_each_step(
    collection: Collection, tiny_model: Path
) -> None:
    """A frozen teacher, or one that is the student of the step: a KL to itself.

    d_1 = min(0.9, 2 / 11), so 9 / 11 of the first step arrive; d_2 = 3 / 12.
    """
    task, source, _, _, _ = prepared(collection, tiny_model)
    follower: Any = source.callback(None)
    assert source._copy is not None
    name, weight = next(iter(task.named_parameters()))
    start = weight.detach().clone()
    control = type("Control", (), {"should_save": False})
    for _ in range(2):
        with torch.no_grad():
            weight.add_(1.0)
        follower.on_step_end(None, None, control)
    average = dict(source._copy.named_parameters())[name]
    moved = 9 / 11 * 0.25 + 2 * 0.75
    torch.testing.assert_close(average, start + moved)


def test_training_with_it_is_neither_without_it_nor_with_a_frozen_one(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Plain InfoNCE, because the term is 0; or a KL to where the student started."""
    rows = {}
    for decay in (0.9, 0.001):
        out = train_student(
            collection, tiny_model, tmp_path / f"{decay}", settings=replace(TINY, ema=decay)
        )
        rows[decay] = Manifest.read(out).details["losses"]
        assert "ema" in Manifest.read(out).inputs
        names = load_file(out / "model.safetensors").keys()
        assert names == load_file(tiny_model / "model.safetensors").keys()
    key = "batch-kl[ema]"
    assert all(row[key] > 1e-4 for losses in rows.values() for row in losses)
    assert rows[0.9][0][key] == pytest.approx(rows[0.001][0][key], rel=1e-5)
    assert rows[0.9][-1][key] != pytest.approx(rows[0.001][-1][key], rel=1e-3)


def test_it_copies_nothing_of_other_sources(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """States that the copy keeps of each step, until memory ends; a joint teacher to average."""
    scores = Run.from_dict({f"q{n}": {f"d{n}": 1.0, f"d{30 + n}": 0.0} for n in range(8)})
    states = StateSource(str(save_tiny_body(tmp_path / "states")))
    joint = JointTeacher(f"cross-encoder:{save_tiny_cross_encoder(tmp_path / 'joint')}")
    ranks = "listwise-ce(student_scores=joint.scores) + listwise-kl(teacher_scores=joint.scores)"
    settings = replace(
        TINY,
        objective=f"{TINY.objective} + {ranks} + hidden-mse",
        ema=0.9,
        candidates_per_query=2,
        teacher_precision="float32",
        max_steps=2,
    )
    sources = [scores, states, joint]
    plan = plan_training(collection, tiny_model, tmp_path / "s", sources=sources, settings=settings)
    (ema,) = (source for source in plan.sources if isinstance(source, EmaTeacher))
    assert ema._copy is not None
    assert (ema._copy.live, ema._copy.joint, ema._copy.tokens) == ((), None, None)
    assert plan.task.joint is joint.module
    assert {states, ema} == {*plan.task.live}
    assert plan.task.tokens is not None
    out = train_student(collection, tiny_model, tmp_path / "s", sources=sources, settings=settings)
    assert Manifest.read(out).details["losses"][-1]["batch-kl[ema]"] > 0


def test_a_killed_training_resumes_with_the_same_teacher(
    collection: Collection, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that starts again as the student of the checkpoint."""
    from retrodistill.stages.training.averaging import Follower

    settings = replace(TINY, save_steps=2, dropout=0.0)
    whole = train_student(collection, tiny_model, tmp_path / "whole", settings=settings)
    plain = Follower.on_step_end

    def killed(self: Follower, args: Any, state: Any, control: Any, **objects: Any) -> None:
        plain(self, args, state, control, **objects)
        if state.global_step == 3:
            raise KeyboardInterrupt

    out = tmp_path / "killed"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Follower, "on_step_end", killed)
        train_student(collection, tiny_model, out, settings=settings)
    assert (checkpoint_folder(out) / "checkpoint-2" / FOLLOWER).is_file()
    train_student(collection, tiny_model, out, settings=settings, resume=True)
    left, right = (load_file(folder / "model.safetensors") for folder in (whole, out))
    for name, weights in left.items():
        torch.testing.assert_close(weights, right[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": None}, "needs the average of the student's weights: give --ema"),
        ({"objective": "contrastive"}, "learns nothing from the average of the student's weights"),
        ({"student_kind": "cross-encoder"}, "reads a query with its own candidates alone"),
    ],
)
def test_what_cannot_be_taught_so_is_refused(
    changes: dict[str, Any], message: str, collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """A flag that is ignored, or a traceback in the first step."""
    with pytest.raises(ConfigError, match=message):
        train_student(collection, tiny_model, tmp_path / "s", settings=replace(TINY, **changes))
    for wrong in ({"ema": 0.0}, {"ema": 1.0}, {"freeze": "document"}):
        with pytest.raises(ConfigError, match="--ema"):
            replace(TINY, **wrong)


def of_one_process(rank: int, world: int, data: Path, model: Path) -> dict[str, float]:
    """Return the losses of one process's queries."""
    settings = replace(TINY, dropout=0.0)
    task, _, examples, collate, _ = prepared(load_collection(f"beir:{data}"), model, settings)
    task.eval()(**collate([examples[index] for index in range(rank, 4, world)]))
    return task.losses


@pytest.mark.slow
def test_two_processes_have_the_loss_of_one(tmp_path: Path) -> None:
    """An average's scores of one process's documents, beside the student's of all."""
    data, model = save_small_collection(tmp_path / "data"), save_tiny_model(tmp_path / "model")
    halves = in_two_processes(of_one_process, data, model)
    for name, value in of_one_process(0, 1, data, model).items():
        assert sum(half[name] for half in halves) / 2 == pytest.approx(value, rel=1e-5)
