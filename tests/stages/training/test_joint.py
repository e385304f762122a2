"""A teacher that is trained with its student: gradients, folders, checkpoints, processes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.corpus import save_small_collection
from fakes.encoders import save_tiny_late_interaction
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from fakes.processes import assert_halves_are_the_whole, in_two_processes
from sentence_transformers import CrossEncoder, SentenceTransformer

from retrodistill import train
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Pairs
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.lineage import model_lineage
from retrodistill.data.store.runs import Run
from retrodistill.models.students.kinds import kind_of
from retrodistill.models.teachers import load_teacher
from retrodistill.objectives.objective import parse_objective
from retrodistill.stages.training import loop, train_student
from retrodistill.stages.training.joint import teacher_folder
from retrodistill.stages.training.optimising import ClipEach, set_rates
from retrodistill.stages.training.plan import TrainingPlan, plan_training
from retrodistill.stages.training.sources.joint import JointTeacher
from retrodistill.stages.training.sources.teacher import TeacherSource

KL = "listwise-kl(teacher_scores=joint.scores)"
STOPPED = "listwise-kl(teacher_scores=joint.scores,stop_gradient=true)"
CE = "listwise-ce(student_scores=joint.scores)"
TWIN = (
    "contrastive + contrastive(batch_scores=joint.batch_scores) "
    "+ batch-kl(teacher_batch_scores=joint.batch_scores) "
)
TINY = TrainSettings(
    objective=f"{CE} + {KL}",
    candidates_per_query=4,
    batch_size=4,
    max_steps=4,
    query_tokens=16,
    doc_tokens=32,
    teacher_tokens=48,
    dropout=0.0,
    learning_rate=1e-3,
    precision="float32",
    teacher_precision="float32",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """A student, and joint teachers as a flag names them."""
    folder = tmp_path_factory.mktemp("models")
    wide = save_tiny_model(folder / "be", layers=3, dimension=48, seed=2)
    return {
        "student": str(save_tiny_model(folder / "student", layers=2)),
        "cross-encoder": f"cross-encoder:{save_tiny_cross_encoder(folder / 'ce', seed=1)}",
        "bi-encoder": f"bi-encoder:{wide}",
        "late-interaction": f"late-interaction:{save_tiny_late_interaction(folder / 'li', seed=1)}",
    }


def planned(
    collection: Collection,
    scores: Run,
    models: Mapping[str, str],
    settings: TrainSettings = TINY,
    kind: str = "cross-encoder",
) -> TrainingPlan:
    """Return the plan of a joint training, in evaluation mode."""
    sources = [scores, JointTeacher(models[kind])]
    plan = plan_training(
        collection, models["student"], Path("unused"), sources=sources, settings=settings
    )
    plan.task.eval()
    return plan


def gradients(plan: TrainingPlan, rows: range = range(4)) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients that the loss of some examples sends into student and teacher."""
    plan.task.zero_grad()
    plan.task(**plan.collate([plan.schedule[row] for row in rows]))["loss"].backward()
    return of_each(plan)


def of_each(plan: TrainingPlan) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of student and teacher, each in one vector."""
    flat = [
        torch.cat(
            [
                (torch.zeros_like(each) if each.grad is None else each.grad).flatten()
                for each in model.parameters()
            ]
        )
        for model in (plan.task.model, plan.task.joint)
    ]
    return flat[0], flat[1]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a saved bi-encoder."""
    return dict(SentenceTransformer(str(folder), device="cpu").state_dict())


@pytest.mark.parametrize(
    ("objective", "student", "teacher"),
    [
        (KL, True, True),
        (STOPPED + " + " + CE, True, True),
        (STOPPED + " + 1e-9*" + CE, True, False),
        (CE, False, True),
        (f"{CE} + contrastive", True, True),
        ("listwise-kl(student_scores=joint.scores,teacher_scores=student.scores)", True, True),
        (
            "listwise-kl(student_scores=joint.scores,teacher_scores=student.scores,"
            "stop_gradient=true)",
            False,
            True,
        ),
    ],
)
def test_a_gradient_enters_the_models_that_a_term_trains(
    objective: str,
    student: bool,
    teacher: bool,
    collection: Collection,
    scores: Run,
    models: Mapping[str, str],
) -> None:
    """A teacher that is silently frozen, a stopped gradient that flows, a student without one."""
    plan = planned(collection, scores, models, replace(TINY, objective=objective))
    for gradient, trained in zip(gradients(plan), (student, teacher), strict=True):
        assert gradient.isfinite().all()
        assert (gradient.norm() > 1e-5) == trained


def test_the_gradient_into_the_teacher_is_that_of_the_formula(
    collection: Collection, scores: Run, models: Mapping[str, str]
) -> None:
    """One that flows through half of the divergence: d KL / d t_i = p_i (ln p_i/q_i - KL) / B."""
    plan = planned(collection, scores, models, replace(TINY, objective=KL))
    batch = plan.collate([plan.schedule[row] for row in range(4)])
    joint = plan.task.joint(batch["batch"])["joint.scores"].detach().requires_grad_()
    plan.task.joint.forward = lambda rows: {"joint.scores": joint}
    captured: list[Any] = []
    objective = plan.task._objective
    plan.task._objective = lambda signals: (captured.append(signals), objective(signals))[1]
    plan.task(**batch)["loss"].backward()
    student, mask = captured[0]["student_scores"].detach(), captured[0]["mask"]
    assert mask.all()
    p, q = joint.detach().softmax(-1), student.softmax(-1)
    terms = p.log() - q.log()
    expected = p * (terms - (p * terms).sum(-1, keepdim=True)) / len(p)
    torch.testing.assert_close(joint.grad, expected)


@pytest.mark.parametrize("kind", ["cross-encoder", "bi-encoder", "late-interaction"])
def test_before_the_first_step_it_scores_as_a_live_teacher(
    kind: str, collection: Collection, scores: Run, models: Mapping[str, str]
) -> None:
    """A list in another order, padding scored as a document, the student's tokens or limits."""
    names = ["scores"] if kind == "cross-encoder" else ["scores", "batch_scores"]
    objective = KL if kind == "cross-encoder" else TWIN + f"+ {KL}"
    uneven = Run.from_dict(
        {
            "q0": {"d0": 3.0, "d30": 2.0, "d31": 1.0, "d32": 0.5},
            "q1": {"d1": 3.0, "d30": 2.0},
            "q2": {"d2": 3.0, "d30": 2.0, "d33": 1.0},
        }
    )
    settings = replace(TINY, objective=objective, batch_size=3, query_prompt="heart ")
    plan = planned(collection, uneven, models, settings, kind)
    batch = plan.collate([plan.schedule[row] for row in range(3)])
    signals = plan.task.joint(batch["batch"])
    teacher = load_teacher(models[kind], collection, max_tokens=48, precision="float32")
    for row, example in enumerate(batch["batch"].examples):
        query = collection.queries[example.query]
        for name, docs in zip(names, (example.docs, batch["batch"].docs), strict=False):
            listed = [collection.docs[int(doc)] for doc in docs]
            pairs = Pairs([query], listed, np.zeros(len(docs), int), np.arange(len(docs)))
            ours = signals[f"joint.{name}"][row, : len(docs)].detach()
            np.testing.assert_allclose(ours, teacher.score(pairs), rtol=1e-4, atol=1e-4)


def test_each_model_has_its_own_learning_rate(
    collection: Collection, scores: Run, models: Mapping[str, str], tmp_path: Path
) -> None:
    """One rate for both; or joint training that is plain --teacher with a dearer forward pass."""
    students, teachers = {}, {}
    for name, own, teacher in (
        ("both", 1e-3, 1e-3),
        ("student", 1e-3, 0.0),
        ("teacher", 0.0, 1e-3),
    ):
        settings = replace(TINY, learning_rate=own, teacher_learning_rate=teacher)
        out = train_student(
            collection,
            models["student"],
            tmp_path / name,
            sources=[scores, JointTeacher(models["cross-encoder"])],
            settings=settings,
        )
        students[name] = weights(out)
        teachers[name] = CrossEncoder(str(teacher_folder(out)), device="cpu").state_dict()
    live = train_student(
        collection,
        models["student"],
        tmp_path / "live",
        sources=[scores, TeacherSource(models["cross-encoder"], label="ce")],
        settings=replace(TINY, objective="listwise-kl(teacher_scores=ce.scores)"),
    )
    students["live"] = weights(live)
    students["start"] = weights(Path(models["student"]))
    start = models["cross-encoder"].partition(":")[2]
    teachers["start"] = CrossEncoder(start, device="cpu").state_dict()

    def apart(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
        return max(float((left[name] - right[name]).abs().max()) for name in left)

    # A teacher that stands still is a live teacher; one that learns is another, at the same rate.
    assert apart(teachers["student"], teachers["start"]) == 0
    assert apart(students["teacher"], students["start"]) == 0
    assert apart(students["student"], students["live"]) < 2e-5
    assert apart(students["both"], students["live"]) > 1e-4
    assert apart(teachers["both"], teachers["start"]) > 1e-3


def test_a_large_gradient_of_one_model_does_not_slow_the_other() -> None:
    """A norm clipped over both models: the student's steps shrink with the teacher's loss."""
    models = [torch.nn.Linear(2, 1, bias=False) for _ in range(2)]
    for model, size in zip(models, (0.5, 100.0), strict=True):
        model.weight.grad = torch.tensor([[size, 0.0]])
    ClipEach(models, 1.0).on_pre_optimizer_step(None, None, None)
    assert [float(model.weight.grad.norm()) for model in models] == pytest.approx([0.5, 1.0])


def test_rates_keep_what_is_decayed() -> None:
    """A bias that decays, or a weight that is in two groups, once its rate is its own."""
    body, joint = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    groups = [
        {"params": [body.weight, joint.weight], "weight_decay": 0.1},
        {"params": [body.bias, joint.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    set_rates(optimizer, {joint: 1e-5})
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    assert [found[id(each)] for each in (body.weight, joint.weight, body.bias, joint.bias)] == [
        (1e-3, 0.1),
        (1e-5, 0.1),
        (1e-3, 0.0),
        (1e-5, 0.0),
    ]


@pytest.mark.parametrize("kind", ["cross-encoder", "bi-encoder"])
def test_both_folders_load_in_plain_sentence_transformers(
    kind: str, collection: Collection, scores: Run, models: Mapping[str, str], tmp_path: Path
) -> None:
    """A folder without its head, of the start's weights, or of both models in one."""
    objective = TINY.objective if kind == "cross-encoder" else TWIN
    joint = JointTeacher(models[kind])
    out = train_student(
        collection,
        models["student"],
        tmp_path / "s",
        sources=[scores, joint],
        settings=replace(TINY, objective=objective),
    )
    folder = teacher_folder(out)
    assert folder.name == "s.teacher"
    assert kind_of(str(folder)).name == kind
    for place in (out, folder):
        manifest = Manifest.read(place, kind="student")
        assert manifest.inputs["joint-teacher"] == joint.fingerprint
        assert len(model_lineage(place).records) == 1
    assert "| teacher | `joint=" in (out / "README.md").read_text()
    query, doc = collection.queries[0].full_text, collection.docs[0].full_text
    model = joint.module.model.eval()
    if kind == "cross-encoder":
        loaded: Any = CrossEncoder(str(folder), device="cpu")
        ours = float(model.predict([(query, doc)], activation_fn=torch.nn.Identity())[0])
        theirs = float(loaded.predict([(query, doc)], activation_fn=torch.nn.Identity())[0])
        start = CrossEncoder(joint.start, device="cpu")
        before = float(start.predict([(query, doc)], activation_fn=torch.nn.Identity())[0])
    else:
        loaded = SentenceTransformer(str(folder), device="cpu")
        ours, theirs = (float(each.encode(query) @ each.encode(doc)) for each in (model, loaded))
        start = SentenceTransformer(joint.start, device="cpu")
        before = float(start.encode(query) @ start.encode(doc))
    assert theirs == pytest.approx(ours, abs=1e-6)
    assert theirs != pytest.approx(before, abs=1e-5)
    student = weights(out)
    assert student.keys() == weights(Path(models["student"])).keys()


class Killed(Exception):
    """The machine has gone."""


def test_a_killed_and_resumed_training_is_the_uninterrupted_one_for_both(
    collection: Collection,
    scores: Run,
    models: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A teacher that starts again in the second half, or whose moments and rate are lost."""
    settings = replace(TINY, save_steps=2, dropout=0.1, teacher_learning_rate=2e-3)

    def trained(name: str, kind: str = "cross-encoder", *, resume: bool = False) -> list[str]:
        out = train_student(
            collection,
            models["student"],
            tmp_path / name,
            sources=[scores, JointTeacher(models[kind])],
            settings=settings,
            resume=resume,
        )
        return [Manifest.read(place).fingerprint for place in (out, teacher_folder(out))]

    def kill(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop._Bar, "on_save", kill, raising=False)
        with pytest.raises(Killed):
            trained("s")
    with pytest.raises(ConfigError, match="other settings: joint-teacher "):
        trained("s", "bi-encoder", resume=True)
    assert trained("s", resume=True) == trained("whole")
    with pytest.raises(ConfigError, match=r"s\.teacher exists already"):
        (tmp_path / "s").rename(tmp_path / "moved")
        trained("s")


@pytest.mark.parametrize("average", ["none", "ema"])
def test_both_are_measured_kept_and_averaged(
    average: str, collection: Collection, models: Mapping[str, str], tmp_path: Path
) -> None:
    """The best student beside the last teacher; a reranker measured as a retriever, or not."""
    listed = {
        f"q{query}": {f"d{(query + step) % 60}": float(10 - step) for step in range(8)}
        for query in range(32)
    }
    settings = replace(TINY, dev_split="test", eval_steps=1, average=average, learning_rate=3e-3)
    joint = JointTeacher(models["cross-encoder"])
    out = train_student(
        collection,
        models["student"],
        tmp_path / "s",
        sources=[Run.from_dict(listed), joint],
        settings=settings,
    )
    student, teacher = (Manifest.read(place).details for place in (out, teacher_folder(out)))
    step = student["development"]["step"]
    assert [row[0] for row in teacher["development"]["values"]] == [1, 2, 3, 4]
    assert teacher["development"]["step"] == step
    assert teacher["development"]["docs"] == "scored"
    assert student["joint_teacher"]["development"]["value"] == teacher["development"]["value"]
    assert len({value for _, value in teacher["development"]["values"]}) > 1
    plan = plan_training(
        collection,
        str(out),
        tmp_path / "again",
        sources=[Run.from_dict(listed), JointTeacher(f"cross-encoder:{teacher_folder(out)}")],
        settings=settings,
    )
    assert plan.joint_development is not None
    measured = plan.joint_development(plan.task.joint.model)
    assert measured == pytest.approx(teacher["development"]["value"])


def test_adapters_are_those_of_both(
    collection: Collection, scores: Run, models: Mapping[str, str], tmp_path: Path
) -> None:
    """Adapters of one model beside the whole weights of the other, or a folder of peft's."""
    plan = planned(collection, scores, models, replace(TINY, lora_rank=2))
    for model in (plan.task.model, plan.task.joint):
        names = [name for name, each in model.named_parameters() if each.requires_grad]
        assert any("lora_" in name for name in names)
        assert not any("embeddings" in name for name in names)
    out = train_student(
        collection,
        models["student"],
        tmp_path / "s",
        sources=[scores, JointTeacher(models["cross-encoder"])],
        settings=replace(TINY, lora_rank=2),
    )
    assert not any("lora" in name for name in weights(out))
    start = models["cross-encoder"].partition(":")[2]
    old = CrossEncoder(start, device="cpu").state_dict()
    new = CrossEncoder(str(teacher_folder(out)), device="cpu").state_dict()
    assert old.keys() == new.keys()
    assert any(not torch.equal(old[name], new[name]) for name in old)


@pytest.mark.parametrize("kind", ["cross-encoder", "bi-encoder"])
def test_cached_gradients_are_those_of_the_whole_batch(
    kind: str, collection: Collection, scores: Run, models: Mapping[str, str]
) -> None:
    """Activations of the teacher that stay in memory, or a gradient of the last chunk alone."""
    objective = TINY.objective if kind == "cross-encoder" else TWIN
    found = []
    for cached in (False, True):
        settings = replace(TINY, objective=objective, cache_gradients=cached, batch_tokens=64)
        found.append(gradients(planned(collection, scores, models, settings, kind)))
    for whole, cached in zip(*found, strict=True):
        torch.testing.assert_close(whole, cached, rtol=1e-4, atol=1e-6)


def test_a_student_of_several_dimensions_asks_once(
    collection: Collection, scores: Run, models: Mapping[str, str]
) -> None:
    """A forward pass of the teacher for each of --dims."""
    plan = planned(collection, scores, models, replace(TINY, dims=(8, 16)))
    calls = []
    score = plan.task.joint.task.scores
    plan.task.joint.task.scores = lambda inputs: (calls.append(1), score(inputs))[1]
    student, teacher = gradients(plan)
    assert len(calls) == 1
    assert student.norm() > 0
    assert teacher.norm() > 0


def of_one_process(
    rank: int,
    world: int,
    data: Path,
    scores: dict[str, dict[str, float]],
    models: Mapping[str, str],
    objective: str,
    kind: str,
) -> dict[str, torch.Tensor]:
    """Return the gradients that the loss of one process's queries sends into each model."""
    torch.set_num_threads(1)
    settings = replace(TINY, objective=objective)
    collection = load_collection(f"beir:{data}")
    plan = planned(collection, Run.from_dict(scores), models, settings, kind)
    share = 4 // world
    student, teacher = gradients(plan, range(rank * share, (rank + 1) * share))
    return {"student": student, "teacher": teacher}


@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("cross-encoder", f"{TINY.objective} + contrastive"),
        ("bi-encoder", f"{TWIN} + layer-kl(teacher_layer_scores=joint.layer_scores)"),
    ],
)
@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(
    kind: str, objective: str, scores: Run, models: Mapping[str, str], tmp_path: Path
) -> None:
    """Documents of the other process in another order for each model, or without a gradient."""
    data = save_small_collection(tmp_path / "data")
    arguments = (data, scores.to_dict(), dict(models), objective, kind)
    halves, whole = in_two_processes(of_one_process, *arguments), of_one_process(0, 1, *arguments)
    assert all(gradient.any() for gradient in whole.values())
    # the weights of layers are those of a process's own queries, nearly the same
    rate = 2e-3 if "layer-kl" in objective else 1e-4
    assert_halves_are_the_whole(halves, whole, rate=rate)


def test_from_the_command_line(
    folder: Path,
    scores: Run,
    models: Mapping[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A flag that is lost on its way, a manifest without the command, a cost that nobody saw."""
    scores.write(tmp_path / "scores")
    words = f"--data beir:{folder} --scores {tmp_path / 'scores'} --student {models['student']} "
    words += f"--joint-teacher {models['cross-encoder']} --out {tmp_path / 's'} --max-steps 2 "
    words += "--batch-size 4 --candidates-per-query 4 --teacher-tokens 32 --query-tokens 16 "
    words += "--teacher-learning-rate 1e-4 --objective"
    assert train.main([*words.split(), TINY.objective]) == 0
    messages = capsys.readouterr().err
    assert "is trained on up to 16 pairs of a query and a document in each of 2 steps" in messages
    assert "gradient into the joint teacher before the first step: joint.listwise-ce" in messages
    losses = Manifest.read(tmp_path / "s").details["losses"]
    assert all(row["joint.listwise-ce"] > 0 and row["listwise-kl[joint]"] > 0 for row in losses)
    assert train.main([*words.split(), TINY.objective, "--out", str(tmp_path / "t.teacher")]) == 0
    assert train.main([*words.split(), TINY.objective, "--out", str(tmp_path / "t")]) == 2
    assert "t.teacher exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "joint", "message"),
    [
        ({"objective": "contrastive"}, "cross-encoder", "learns nothing from a joint teacher"),
        ({"objective": f"{STOPPED} + contrastive"}, "cross-encoder", "so nothing trains it"),
        ({}, None, "needs a joint teacher: give --joint-teacher"),
        ({"objective": "listwise-kl", "teacher_learning_rate": 1e-5}, None, "is that of --joint"),
        ({"objective": TWIN}, "cross-encoder", "does not give: take one that does"),
        (
            {"objective": f"{TWIN} + layer-kl(teacher_layer_scores=joint.layer_scores)"},
            "late-interaction",
            "asks for joint.layer_scores, which",
        ),
        (
            {"objective": TWIN, "freeze": "document", "compare": "collection"},
            "bi-encoder",
            "makes each batch the whole collection",
        ),
        ({"student_kind": "cross-encoder"}, "bi-encoder", "reads a query with its own candidates"),
        ({"dev_split": "test"}, "cross-encoder", "lists none of the queries"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(
    changes: dict[str, Any],
    joint: str | None,
    message: str,
    collection: Collection,
    scores: Run,
    models: Mapping[str, str],
    tmp_path: Path,
) -> None:
    """A teacher that nothing trains, a flag that does nothing, a traceback in the first step."""
    sources = [scores, *([JointTeacher(models[joint])] if joint else [])]
    start = models["student"]
    if "student_kind" in changes:
        start = str(save_tiny_cross_encoder(tmp_path / "start"))
    with pytest.raises((ConfigError, DataError), match=message):
        plan_training(
            collection, start, tmp_path / "s", sources=sources, settings=replace(TINY, **changes)
        )


def test_lists_of_a_positive_alone_are_refused(
    collection: Collection, models: Mapping[str, str], tmp_path: Path
) -> None:
    """A cross-entropy and a divergence over one document: 0 for hours."""
    with pytest.raises(ConfigError, match="without --scores a list is the labelled document alone"):
        plan_training(
            collection,
            models["student"],
            tmp_path / "s",
            sources=[JointTeacher(models["cross-encoder"])],
            settings=TINY,
        )


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("listwise-kl(stop_gradient=true)", "stop_gradient is for scores of a trained model"),
        ("listwise-kl(teacher_scores=old.scores,stop_gradient=true)", "No gradient enters any"),
        ("listwise-kl(teacher_scores=joint.scores,stop_gradient=1)", "must be true or false"),
        ("listwise-kl(teacher_scores=joint.batch_scores)", "is not understood"),
        ("listwise-ce(student_scores=old.scores)", "would train old"),
        ("listwise-kl(teacher_scores=student.scores)", "has the student learn from itself"),
    ],
)
def test_a_wrong_alias_is_explained(objective: str, message: str) -> None:
    """A stopped gradient that never was one, or a term that trains nothing."""
    with pytest.raises(ConfigError, match=message):
        parse_objective(objective)


def test_a_joint_teacher_reads_its_own_view(
    collection: Collection, scores: Run, models: Mapping[str, str], tmp_path: Path
) -> None:
    """A teacher of the original texts that reads the student's translations."""
    original = save_small_collection(tmp_path / "original", docs=70)
    rows = [json.loads(line) for line in (original / "corpus.jsonl").read_text().splitlines()][:60]
    lines = [json.dumps(row | {"text": f"egg {row['text']}"}) for row in rows]
    (original / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    taught = collection.taught_by(load_collection(f"beir:{original}"))
    found = []
    for texts in (collection, taught):
        plan = planned(texts, scores, models)
        batch = plan.collate([plan.schedule[row] for row in range(4)])
        found.append((plan.task.joint(batch["batch"])["joint.scores"], batch["docs"]))
    assert not torch.allclose(found[0][0], found[1][0])
    ids = [[chunk["features"]["input_ids"] for chunk in docs] for _, docs in found]
    assert all(torch.equal(*pair) for pair in zip(*ids, strict=True))
