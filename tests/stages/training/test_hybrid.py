"""Three heads on one body: what each loss trains, and that they train together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_model
from fakes.processes import assert_halves_are_the_whole, in_two_processes
from torch import Tensor

from retrodistill import embed, mine, train
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.lineage import model_lineage
from retrodistill.data.store.runs import Run
from retrodistill.models.students.hybrid import HybridEncoder, load_hybrid
from retrodistill.models.students.kinds import kind_of
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.objectives.recipes import load_recipe
from retrodistill.stages.training import loop, train_student
from retrodistill.stages.training.building import build_batches, build_task
from retrodistill.stages.training.development import Development
from retrodistill.stages.training.material import gather_material
from retrodistill.stages.training.sources.teacher import TeacherSource

M3 = load_recipe("m3-self").settings["objective"]
TINY = TrainSettings(
    student_kind="hybrid",
    objective=M3,
    candidates_per_query=4,
    batch_size=4,
    max_steps=4,
    query_tokens=16,
    doc_tokens=32,
    dropout=0.0,
    precision="float32",
)
LISTS = Run.from_dict(
    {
        "q0": {"d0": 3.0, "d30": 2.0, "d31": 1.0, "d32": 0.5},
        "q1": {"d1": 3.0, "d30": 2.0},
        "q2": {"d2": 3.0, "d30": 2.0, "d33": 1.0},
        "q3": {"d3": 3.0, "d34": 1.0},
    }
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("start"), layers=1)


def prepared(
    collection: Collection, start: Path, settings: TrainSettings = TINY
) -> tuple[Any, Any, list[Any]]:
    """Return a task with new heads, its collator, and the examples of one batch of all queries."""
    terms = parse_objective(settings.objective)
    material = gather_material(collection, "train", LISTS, terms, settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = load_hybrid(str(start), torch.device("cpu"))
    task = build_task(model, terms, settings, torch.float32).eval()
    examples = list(material.schedule(model, replace(settings, max_steps=1)))
    return task, build_batches(model, settings, collection), examples


def gradients(task: Any, batch: Any) -> tuple[float, dict[str, Tensor]]:
    """Return the loss, and the gradients of the body (dense) and of each head."""
    task.zero_grad(set_to_none=True)
    loss = task(**batch)["loss"]
    loss.backward()
    parts = {"body": task.model.dense, **task.model.tails}
    empty = torch.zeros(1)
    return loss.item(), {
        name: torch.cat([empty if p.grad is None else p.grad.flatten() for p in part.parameters()])
        for name, part in parts.items()
    }


def signals_of(task: Any, batch: Any) -> Signals:
    seen: list[Signals] = []
    objective = task._objective

    def spy(signals: Signals) -> dict[str, Tensor]:
        seen.append(signals)
        return objective(signals)

    task._objective = spy
    task(**batch)
    task._objective = objective
    return seen[0]


@pytest.mark.parametrize("head", ["dense", "sparse", "multi-vector"])
def test_the_loss_of_a_head_trains_it_and_the_body_and_no_other_head(
    head: str, collection: Collection, start: Path
) -> None:
    """Heads that share no gradient with the body, or a head that another one's loss trains."""
    for objective in (
        f"contrastive(batch_scores={head}.batch_scores)",
        f"listwise-kl(student_scores={head}.scores,teacher_scores=student.scores,stop_gradient=true)",
    ):
        settings = replace(TINY, objective=objective)
        task, collate, examples = prepared(collection, start, settings)
        _, found = gradients(task, collate(examples))
        trained = {name for name, gradient in found.items() if gradient.any()}
        assert trained == {"body", head} - {"dense"}


def test_without_a_name_the_scores_are_the_sum_of_all_heads(
    collection: Collection, start: Path
) -> None:
    """An ensemble that is the dense score alone; two heads that no loss ever trains."""
    task, collate, examples = prepared(collection, start, replace(TINY, objective="contrastive"))
    batch = collate(examples)
    signals = signals_of(task, batch)
    heads = [signals[f"{name}.batch_scores"] for name in ("dense", "sparse", "multi-vector")]
    assert min(scores.std() for scores in heads) > 0.001
    total = heads[0] + 0.3 * heads[1] + heads[2]
    torch.testing.assert_close(signals["batch_scores"], total)
    lists = signals["student_scores"]
    torch.testing.assert_close(lists, total.gather(1, batch["candidates"]))
    _, found = gradients(task, batch)
    assert all(gradient.any() for gradient in found.values())


def test_the_sum_teaches_and_does_not_learn(collection: Collection, start: Path) -> None:
    """A stop-gradient that is missing: the sum comes down to its weakest head."""
    words = "batch-kl(batch_scores=dense.batch_scores,teacher_batch_scores=student.batch_scores"
    found = {}
    for stop in ("true", "false"):
        settings = replace(TINY, objective=f"{words},stop_gradient={stop})")
        task, collate, examples = prepared(collection, start, settings)
        found[stop] = gradients(task, collate(examples))
    assert found["true"][0] == found["false"][0] > 0
    assert not found["true"][1]["sparse"].any()
    assert not found["true"][1]["multi-vector"].any()
    assert found["false"][1]["sparse"].any()
    assert found["false"][1]["multi-vector"].any()
    scores = torch.tensor([[0.3, 0.1, -0.2]], requires_grad=True)
    total = torch.tensor([[0.9, 0.1, 0.4]], requires_grad=True)
    terms = parse_objective(f"{words},stop_gradient=true,student_temperature=1)")
    signals = Signals(**{"batch_scores": total, "dense.batch_scores": scores})
    bind(terms)(signals)["dense.batch-kl[student]"].backward()
    assert total.grad is None
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, scores.softmax(-1) - total.softmax(-1))


def test_m3_self_is_the_published_sum(collection: Collection, start: Path) -> None:
    """A plain InfoNCE or a plain KL under its name, or weights of other heads."""
    task, collate, examples = prepared(collection, start)
    batch = collate(examples)
    signals = signals_of(task, batch)
    labels, mask = signals["batch_labels"], signals["batch_mask"]
    positive = labels.int().argmax(1, keepdim=True)
    assert (labels.sum(1) == 1).all()

    def infonce(scores: Tensor) -> Tensor:
        logits = (scores / 0.02).masked_fill(~mask, -1e9).log_softmax(-1)
        return -logits.gather(1, positive).mean()

    def cross_entropy(scores: Tensor) -> Tensor:
        return -((total / 0.02).softmax(-1) * (scores / 0.02).log_softmax(-1)).sum(-1).mean()

    names = ("dense", "sparse", "multi-vector")
    dense, sparse, multi = (signals[f"{name}.batch_scores"] for name in names)
    total = dense + 0.3 * sparse + multi
    base = (infonce(dense) + infonce(total) + 0.1 * infonce(sparse) + infonce(multi)) / 4
    self_distilled = (cross_entropy(dense) + 0.1 * cross_entropy(sparse) + cross_entropy(multi)) / 3
    entropy = 2.1 / 3 * cross_entropy(total)  # what a KL divergence leaves out
    loss = task(**batch)["loss"]
    expected = (base + self_distilled - entropy) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    task.progress = 0.05
    assert task(**batch)["loss"].item() == pytest.approx(base.item() / 2, rel=1e-4)
    for plain in ("contrastive(temperature=0.02)", "contrastive", "batch-kl"):
        other = bind(parse_objective(plain))(Signals(**signals, teacher_batch_scores=total))
        assert loss.item() != pytest.approx(sum(other.values()).item(), rel=0.05)


def test_cached_gradients_are_those_of_the_whole_batch(collection: Collection, start: Path) -> None:
    """Heads that see a chunk at a time, or a body that gets the gradient of one of them."""
    whole, cached = (
        prepared(collection, start, replace(TINY, cache_gradients=on, batch_tokens=64))
        for on in (False, True)
    )
    first = gradients(whole[0], whole[1](whole[2]))
    second = gradients(cached[0], cached[1](cached[2]))
    assert first[0] == pytest.approx(second[0])
    for name, gradient in first[1].items():
        torch.testing.assert_close(second[1][name], gradient, rtol=1e-4, atol=1e-6)


class Killed(Exception):
    """The machine has gone."""


def test_self_distillation_starts_when_it_is_said_also_after_a_kill(
    collection: Collection, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A term that starts at once, never, or with its own clock after a resume."""
    late = replace(TINY, objective=M3.replace("start=0.1", "start=0.5"), save_steps=1)

    def trained(name: str, settings: TrainSettings = late, *, resume: bool = False) -> Manifest:
        out = train_student(
            collection, start, tmp_path / name, sources=[LISTS], settings=settings, resume=resume
        )
        return Manifest.read(out)

    def kill(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop._Bar, "on_save", kill, raising=False)
        with pytest.raises(Killed):
            trained("s")
    resumed, whole = trained("s", resume=True), trained("whole")
    assert resumed.fingerprint == whole.fingerprint
    present = ["dense.batch-kl[student]" in row for row in whole.details["losses"]]
    assert present == [False, False, True, True]
    assert all("dense.contrastive" in row for row in whole.details["losses"])
    assert whole.fingerprint != trained("at-once", replace(TINY, save_steps=1)).fingerprint


def test_a_measurement_is_of_the_sum(collection: Collection, start: Path) -> None:
    """The best weights chosen by the dense head, whatever becomes of the others."""
    task, _, _ = prepared(collection, start)
    development = Development(collection, "test", kind="hybrid")
    queries = [collection.queries.get(query).full_text for query in development.query_ids]
    texts = collection.docs.full_texts(np.arange(len(collection.docs)))
    expected = HybridEncoder(task.model).scorer(queries)(texts)
    run = development.search(task.model)
    best = {query: docs[0] for query, docs, _ in run.lists()}
    ids = collection.docs.ids(expected.argmax(1))
    assert [best[query] for query in development.query_ids] == list(ids)


def test_every_head_is_used_by_naming_its_folder(
    folder: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student that no command reads, or whose heads nobody can tell where they came from."""
    data, out = f"beir:{folder}", tmp_path / "s"
    words = f"--data {data} --recipe m3-self --out {out} --max-steps 2 --batch-size 4 "
    words += "--query-tokens 16 --doc-tokens 32 "
    assert train.main(f"{words} --dev-split test --student {start}".split()) == 0
    assert "no sparse and no multi-vector head: new ones are trained" in capsys.readouterr().err
    first = Manifest.read(out)
    assert train.main(f"{words} --overwrite --student {out}".split()) == 0
    assert "new ones are trained" not in capsys.readouterr().err
    assert Manifest.read(out).fingerprint != first.fingerprint
    heads = {"dense": out, "sparse": out / "sparse", "late-interaction": out / "multi-vector"}
    best = set()
    for retriever, model in {**heads, "hybrid": out}.items():
        run = tmp_path / retriever
        words = f"--data {data} --split test --retriever {retriever}:{model} --out {run}"
        assert mine.main(words.split()) == 0
        best.add(tuple(docs[0] for _, docs, _ in Run.read(run).lists()))
    assert len(best) > 1
    for name, model in heads.items():
        assert kind_of(str(model)).retriever == name
        assert model_lineage(model).records == model_lineage(out).records
        words = f"--data {data} --model {model} --out {tmp_path / f'{name}-index'}"
        assert embed.main(words.split()) == 0
    card = (out / "README.md").read_text()
    for expected in ('SentenceTransformer("s")', 'Encoder("s/sparse")', '("s/multi-vector")'):
        assert expected in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student_kind": "bi-encoder"},
            r"asks for dense.batch_scores.*does not have: give --student-kind hybrid",
        ),
        ({"width": 16}, "--width is for --student-kind bi-encoder, not hybrid"),
        ({"dims": (8,)}, "--dims is for --student-kind bi-encoder, not hybrid"),
    ],
)
def test_what_a_hybrid_student_does_not_have_is_refused(
    changes: dict[str, Any], message: str, collection: Collection, start: Path, tmp_path: Path
) -> None:
    """A loss that asks for a teacher named dense, or a setting that reaches one head of three."""
    with pytest.raises(ConfigError, match=message):
        train_student(collection, start, tmp_path / "s", settings=replace(TINY, **changes))


def test_a_teacher_cannot_have_the_name_of_a_head(
    collection: Collection, start: Path, tmp_path: Path
) -> None:
    """A term that trains the teacher's scores, or learns from the head's, whichever came last."""
    teacher = TeacherSource(f"bi-encoder:{start}", label="dense")
    with pytest.raises(ConfigError, match=r"give the teacher another label than dense"):
        train_student(collection, start, tmp_path / "s", sources=[teacher], settings=TINY)


def of_one_process(
    rank: int, world: int, data: Path, start: Path
) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and the gradients of one process's queries."""
    task, collate, examples = prepared(load_collection(f"beir:{data}"), start)
    share = len(examples) // world
    return gradients(task, collate(examples[rank * share : (rank + 1) * share]))


@pytest.mark.slow
def test_two_processes_are_one(folder: Path, start: Path) -> None:
    """Heads whose documents stay in their process, or come without a gradient."""
    loss, whole = of_one_process(0, 1, folder, start)
    losses, gradients = zip(*in_two_processes(of_one_process, folder, start), strict=True)
    assert sum(losses) / 2 == pytest.approx(loss, rel=1e-4)
    assert_halves_are_the_whole(gradients, whole, rate=1e-3)
