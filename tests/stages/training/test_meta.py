"""Meta-learning: losses at adapted weights, of parts that read other views.

The languages are those of `fakes.views`: words spelled backwards, and a mark for the second one.
"""

import json
import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_model
from fakes.processes import assert_halves_are_the_whole, in_two_processes
from fakes.views import save_view
from torch import Tensor

from retrodistill import train
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.tasks import Task
from retrodistill.objectives.objective import parse_objective
from retrodistill.objectives.recipes import load_recipe
from retrodistill.stages.training import loop, train_student
from retrodistill.stages.training.building import build_batches, build_task
from retrodistill.stages.training.candidates import judged_elsewhere
from retrodistill.stages.training.plan import TrainingPlan, plan_training

SPECS = ("own", "backwards:own", "own+backwards+other:own+backwards")
RATE = 0.05
TINY = TrainSettings(
    objective="contrastive(temperature=0.1) + 0.5*transfer-mse",
    inner_learning_rate=RATE,
    inner_steps=2,
    batch_size=12,
    max_steps=2,
    query_tokens=32,
    doc_tokens=64,
    dropout=0.0,
    precision="float32",
)


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BEIR folder of the small collection with two views."""
    copied = tmp_path_factory.mktemp("meta") / "data"
    shutil.copytree(folder, copied)
    save_view(copied, "backwards")
    save_view(copied, "other", mark="other")
    return copied


@pytest.fixture(scope="module")
def viewed(data: Path) -> Collection:
    return load_collection(f"beir:{data}").meta_viewed(SPECS)


def planned(
    collection: Collection, student: Path, settings: TrainSettings = TINY, **options: Any
) -> TrainingPlan:
    return plan_training(collection, student, Path("unused"), settings=settings, **options)


def first_batch(plan: TrainingPlan) -> dict[str, Any]:
    size = plan.settings.batch_size
    return plan.collate([plan.schedule[index] for index in range(size)])


def gradients(task: Task, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Return the gradient of each weight, and the loss under the name `loss`."""
    task.zero_grad()
    loss = task(**batch)["loss"]
    loss.backward()
    found = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach()}


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], **limits: float) -> None:
    for name in left.keys() | right.keys():
        zero = torch.zeros_like(left.get(name, right.get(name)))  # type: ignore[arg-type]
        torch.testing.assert_close(left.get(name, zero), right.get(name, zero), **limits)


def plain_task(plan: TrainingPlan, objective: str = "contrastive(temperature=0.1)") -> Task:
    """Return the same student under a task that adapts nothing."""
    settings = replace(plan.settings, objective=objective, inner_learning_rate=None, inner_steps=1)
    model = deepcopy(plan.task.model)
    return build_task(model, parse_objective(objective), settings, torch.float32)


def adapted(task: Task, part: dict[str, Any], *, rate: float, steps: int) -> Task:
    """Return a copy of a task after steps of torch's own SGD on a part."""
    copied = deepcopy(task)
    optimizer = torch.optim.SGD(copied.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        copied(**part)["loss"].backward()
        optimizer.step()
    return copied


def test_the_loss_and_its_gradient_are_those_of_copies_that_sgd_adapted(
    viewed: Collection, tiny_model: Path
) -> None:
    """Gradients at the unadapted weights; a step that is lost; a teacher without a gradient."""
    plan = planned(viewed, tiny_model)
    batch = first_batch(plan)
    mono, bilingual, multilingual = batch["parts"]
    student = plain_task(plan)
    first = adapted(student, mono, rate=RATE, steps=2)
    second = adapted(student, bilingual, rate=RATE, steps=2)
    tasks = first, second, student
    for task in tasks:
        task.zero_grad()
    teacher, query = first(**bilingual)["loss"], second(**multilingual)["loss"]
    support = student(**bilingual)["loss"]
    loss = (teacher + query) / 2 + 0.5 * (support - teacher) ** 2
    loss.backward()
    expected = {
        name: sum(p.grad for p in same if p.grad is not None)
        for (name, *_), *same in zip(
            [(name,) for name, _ in student.named_parameters()],
            *(task.parameters() for task in tasks),
            strict=True,
        )
    }
    expected = {name: value for name, value in expected.items() if isinstance(value, Tensor)}
    actual = gradients(plan.task, batch)
    assert abs(support - teacher).item() > 1e-2
    assert_close(actual, expected | {"loss": loss.detach()}, rtol=1e-4, atol=1e-5)
    # What it would become without a part of it.
    joint = (student(**bilingual)["loss"] + student(**multilingual)["loss"]) / 2
    alone = gradients(planned(viewed, tiny_model, replace(TINY, objective=CONTRASTIVE)).task, batch)
    assert actual["loss"].item() != pytest.approx(joint.item(), rel=1e-2)
    assert alone["loss"].item() == pytest.approx(((teacher + query) / 2).item(), rel=1e-5)
    direction = [torch.cat([g[n].flatten() for n in alone if n != "loss"]) for g in (actual, alone)]
    assert torch.cosine_similarity(*direction, dim=0) < 0.999


CONTRASTIVE = "contrastive(temperature=0.1)"


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_rate_of_0_is_joint_training_on_the_query_parts(
    dropout: float, viewed: Collection, tiny_model: Path
) -> None:
    """Readings that change the random state, or weights, of those after them."""
    plan = planned(viewed, tiny_model, replace(TINY, inner_learning_rate=0.0, dropout=dropout))
    batch = first_batch(plan)
    task, plain = plan.task.train(), plain_task(plan).train()
    torch.manual_seed(3)
    found = gradients(task, batch)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    losses = [plain(**part)["loss"] for part in batch["parts"]]
    loss = torch.stack(losses[1:]).mean()
    loss.backward()
    assert torch.equal(after, torch.get_rng_state())  # each part drew once
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert task.losses["transfer-mse"] == 0
    assert torch.equal(found["loss"], loss.detach())
    assert_close(found, expected | {"loss": loss.detach()}, rtol=1e-5, atol=1e-7)
    torch.manual_seed(3)
    other = planned(viewed, tiny_model, replace(TINY, dropout=dropout)).task.train()
    torch.manual_seed(3)
    assert other(**batch)["loss"].item() != pytest.approx(loss.item(), rel=1e-2)


def test_all_readings_of_a_part_have_the_same_dropout(viewed: Collection, tiny_model: Path) -> None:
    """Losses that differ by chance, and a squared difference that trains on it."""
    settings = replace(TINY, dropout=0.3, inner_learning_rate=1e-6)
    plan = planned(viewed, tiny_model, settings)
    batch, task = first_batch(plan), plan.task.train()
    assert task(**batch)["loss"].item() != task(**batch)["loss"].item()
    assert 0 < task.losses["transfer-mse"] < 1e-6


def test_weights_are_what_they_were_also_after_an_error(
    viewed: Collection, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapted weights that stay in the model, and gradients that are added up in it."""
    plan = planned(viewed, tiny_model)
    batch, task = first_batch(plan), plan.task.train()
    before = dict(task.named_parameters())
    values = {name: parameter.detach().clone() for name, parameter in before.items()}

    def check() -> None:
        for name, parameter in task.model.named_parameters(prefix="model"):
            assert parameter is before[name]
            assert torch.equal(parameter, values[name])
            assert parameter.grad is None

    task(**batch)
    check()
    with pytest.raises(KeyError):
        task(parts=[*batch["parts"][:2], {**batch["parts"][2], "signals": {}}])
    check()


def test_not_plain_contrastive_on_the_union_of_the_views(
    viewed: Collection, tiny_model: Path
) -> None:
    """One batch of all languages, whose queries compete with each other's documents."""
    plan = planned(viewed, tiny_model)
    found = gradients(plan.task, first_batch(plan))
    union = load_collection(viewed.spec).meta_viewed(["own+backwards+other:own"])
    settings = replace(TINY, objective=CONTRASTIVE, inner_learning_rate=None, inner_steps=1)
    collate = build_batches(plan.task.model, settings, union.meta_views[0])  # type: ignore[arg-type]
    items = [plan.schedule[index] for index in range(12)]
    plain = gradients(plain_task(plan), collate(items))
    assert found["loss"].item() != pytest.approx(plain["loss"].item(), rel=1e-2)
    both = [torch.cat([g[n].flatten() for n in plain if n != "loss"]) for g in (found, plain)]
    assert torch.cosine_similarity(*both, dim=0) < 0.95


def test_each_part_reads_its_views(viewed: Collection, data: Path) -> None:
    """The collection's own texts in every part; a document in the query's language."""
    base = load_collection(f"beir:{data}")
    backwards, other = base.view("backwards"), base.view("other")
    rows = np.array([5, 2, 9, 7])
    mono, bilingual, multilingual = viewed.meta_views
    assert mono.queries.full_texts(rows) == base.queries.full_texts(rows)
    assert bilingual.queries.full_texts(rows) == backwards.queries.full_texts(rows)
    assert bilingual.docs.full_texts(rows) == base.docs.full_texts(rows)
    sides = [base, backwards, other, base]
    expected = [view.queries.full_texts(rows[[place]])[0] for place, view in enumerate(sides)]
    assert multilingual.queries.full_texts(rows) == expected
    assert multilingual.docs.full_texts(rows)[1::2] == backwards.docs.full_texts(rows[1::2])
    assert multilingual.queries.full_texts(rows[:0]) == []


def test_what_is_read_in_any_view_is_recorded_and_no_test_query(
    viewed: Collection, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """A test query that is trained on in another language, and a student that is called clean."""
    lines = (data / "queries.backwards.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    test_text = next(row["text"] for row in rows if row["_id"] in viewed.qrels("test"))
    name = "other-id"
    for view, text in (("", "heart rate"), (".backwards", test_text), (".other", test_text)):
        with (copied / f"queries{view}.jsonl").open("a", encoding="utf-8") as added:
            added.write(json.dumps({"_id": name, "text": text}) + "\n")
    base = load_collection(f"beir:{copied}")
    assert name not in judged_elsewhere(base, "train")["test"]
    assert name in judged_elsewhere(base.meta_viewed(SPECS), "train")["test"]
    out = train_student(viewed, tiny_model, tmp_path / "s", settings=replace(TINY, max_steps=1))
    manifest = Manifest.read(out)
    assert "meta_view" in manifest.inputs
    records = manifest.details["lineage"]["records"]
    names = {record["collection"] for record in records}
    assert {"data", "data, view backwards", "data, view other"} <= names


class Killed(Exception):
    """The machine has gone."""


def test_a_resumed_training_has_the_weights_of_an_uninterrupted_one(
    viewed: Collection, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random state that the replayed dropout has moved, or adapted weights in a checkpoint."""
    settings = replace(TINY, dropout=0.1, max_steps=4, save_steps=2, learning_rate=1e-3)

    def kill(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop._Bar, "on_save", kill, raising=False)
        with pytest.raises(Killed):
            train_student(viewed, tiny_model, tmp_path / "s", settings=settings)
    other = load_collection(viewed.spec).meta_viewed(["own", "other", "backwards"])
    with pytest.raises(ConfigError, match="other settings: meta_view"):
        train_student(other, tiny_model, tmp_path / "s", settings=settings, resume=True)
    with pytest.raises(ConfigError, match=r"inner_steps 2 \(now 1\)"):
        train_student(
            viewed,
            tiny_model,
            tmp_path / "s",
            settings=replace(settings, inner_steps=1),
            resume=True,
        )
    resumed = train_student(viewed, tiny_model, tmp_path / "s", settings=settings, resume=True)
    whole = train_student(viewed, tiny_model, tmp_path / "whole", settings=settings)
    assert Manifest.read(resumed).fingerprint == Manifest.read(whole).fingerprint
    assert (
        Manifest.read(resumed).fingerprint != Manifest.read(tiny_copy(tmp_path, viewed)).fingerprint
    )


def tiny_copy(folder: Path, viewed: Collection) -> Path:
    """Return a student of the same steps at an inner rate of 0."""
    settings = replace(TINY, dropout=0.1, max_steps=4, learning_rate=1e-3, inner_learning_rate=0.0)
    student = save_tiny_model(folder / "start")
    return train_student(viewed, student, folder / "joint", settings=settings)


@pytest.mark.parametrize("kind", ["sparse", "late-interaction", "bfloat16", "lora", "dims"])
def test_other_students_and_settings_are_adapted_too(
    kind: str, viewed: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """A traceback of a second pass through a freed graph, or a term without a value."""
    from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse

    save = {"sparse": save_tiny_sparse, "late-interaction": save_tiny_late_interaction}
    student = save[kind](tmp_path / "start") if kind in save else tiny_model
    changes: dict[str, Any] = {
        "bfloat16": {"precision": "bfloat16"},
        "lora": {"lora_rank": 2},
        "dims": {"dims": (16,)},
    }.get(kind, {"student_kind": kind})
    settings = replace(TINY, **changes, average="ema")
    details = Manifest.read(
        train_student(viewed, student, tmp_path / "s", settings=settings)
    ).details
    for row in details["losses"]:
        assert row["contrastive"] > 0
        assert row["transfer-mse"] > 0


def test_a_term_with_a_start_and_stored_scores(
    viewed: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Progress that does not reach the task of a part; scores of the wrong rows."""
    objective = f"listwise-kl(student_temperature=0.1) + {CONTRASTIVE[:-1]},start=0.5)"
    out = train_student(
        viewed,
        tiny_model,
        tmp_path / "s",
        sources=[scores],
        settings=replace(TINY, objective=objective, other_texts=True),
    )
    first, second = Manifest.read(out).details["losses"]
    assert "contrastive" not in first
    assert second["contrastive"] > 0
    assert first["listwise-kl"] > 0


@pytest.mark.parametrize(
    ("changes", "specs", "message"),
    [
        ({"objective": CONTRASTIVE, "inner_steps": 1}, ["own"], "needs 2 --meta-view at least"),
        ({}, ["own", "backwards"], "needs 3 --meta-view at least, but 2 are given: transfer-mse"),
        ({"batch_size": 8}, SPECS, "--batch-size 8 cannot be dealt out to 3 parts"),
        ({"batch_size": 3}, SPECS, "multiple of 3, 6 at least"),
        ({"objective": "transfer-mse"}, SPECS, "has no loss to adapt weights by"),
        ({"student_kind": "cross-encoder"}, SPECS, "read queries and documents apart"),
        ({"inner_learning_rate": None, "inner_steps": 1}, SPECS, "compares the losses of adapted"),
        (
            {"inner_learning_rate": None, "inner_steps": 1, "objective": CONTRASTIVE},
            SPECS,
            "--meta-view needs --inner-learning-rate",
        ),
    ],
)
def test_what_cannot_be_adapted_so_is_refused(
    changes: dict[str, Any],
    specs: Sequence[str],
    message: str,
    data: Path,
    tiny_model: Path,
) -> None:
    """A setting that is ignored, or a traceback in the first step."""
    collection = load_collection(f"beir:{data}").meta_viewed(specs)
    with pytest.raises(ConfigError, match=message):
        planned(collection, tiny_model, replace(TINY, **changes))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cache_gradients", True),
        ("freeze", "document"),
        ("ema", 0.9),
        ("queue", 4),
        ("prune_vocabulary", True),
    ],
)
def test_settings_that_would_read_other_weights_or_texts_are_refused(
    setting: str, value: Any
) -> None:
    """Activations that are recomputed with the weights before they were adapted."""
    flag = f"--{setting.replace('_', '-')}"
    with pytest.raises(ConfigError, match=f"{flag} does not go with --inner-learning-rate"):
        replace(TINY, **{setting: value})
    with pytest.raises(ConfigError, match="--inner-steps needs --inner-learning-rate"):
        TrainSettings(inner_steps=2)
    with pytest.raises(ConfigError, match="--inner-learning-rate must be at least 0"):
        TrainSettings(inner_learning_rate=-1.0)


@pytest.mark.parametrize("spec", ["", "own:", "own+:own", "own:own:own", "+own"])
def test_a_spec_of_views_that_is_malformed_is_refused(spec: str, viewed: Collection) -> None:
    """An empty name that is read as the folder itself."""
    with pytest.raises(ConfigError, match="is not understood"):
        viewed.meta_viewed([spec])
    with pytest.raises(ConfigError, match="there is no view 'backward'. Did you mean 'backwards'"):
        viewed.meta_viewed(["own", "backward"])
    with pytest.raises(ConfigError, match="all of them are the same texts"):
        viewed.meta_viewed(["own", "own:own"])


def test_the_recipe_from_the_command(
    data: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Contrastive training under the name of a method, without a view; an unused teacher."""
    words = f"--recipe maml-align --data beir:{data} --student {tiny_model} --out {tmp_path / 's'} "
    words += "--batch-size 6 --max-steps 1 --query-tokens 16 --doc-tokens 32 --precision float32"
    assert train.main(words.split()) == 2
    assert "needs 3 --meta-view at least, but 0 are given" in capsys.readouterr().err
    views = "--meta-view own --meta-view backwards --meta-view own+backwards"
    refused = f"{words} {views} --objective contrastive+embed-distill --vectors {tiny_model}"
    assert train.main(refused.split()) == 2
    assert "goes with labels, --scores and --preferences, not with" in capsys.readouterr().err
    assert train.main(f"{words} {views}".split()) == 0
    manifest = Manifest.read(tmp_path / "s")
    recipe = load_recipe("maml-align").settings
    assert manifest.config["inner_learning_rate"] == recipe["inner_learning_rate"]
    assert manifest.config["inner_steps"] == recipe["inner_steps"]
    assert "own+backwards" in (tmp_path / "s" / "README.md").read_text()


def of_one_process(rank: int, world: int, data: Path, model: Path) -> Any:
    """Return the gradients and the losses of this process's share of a batch."""
    torch.set_num_threads(1)
    viewed = load_collection(f"beir:{data}").meta_viewed(["own", "backwards:own", "own+other:own"])
    share = 12 // world
    plan = planned(viewed, model, replace(TINY, batch_size=share))
    items = [plan.schedule[index] for index in range(rank * share, (rank + 1) * share)]
    found = gradients(plan.task, plan.collate(items))
    return found | {key: torch.tensor(value) for key, value in plan.task.losses.items()}


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradient_of_one(data: Path, tmp_path: Path) -> None:
    """Weights that each process adapts its own way, or a difference of losses of its own."""
    model = save_tiny_model(tmp_path / "model")
    halves = in_two_processes(of_one_process, data, model)
    whole = of_one_process(0, 1, data, model)
    assert_halves_are_the_whole(halves, whole, rate=1e-3)
    first, second = (half["transfer-mse"] for half in halves)
    assert first == second
    assert float(whole["transfer-mse"]) > 1e-6
