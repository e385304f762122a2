"""Two processes that train on the halves of a batch, against one that trains on all of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_body, save_tiny_model
from fakes.processes import assert_halves_are_the_whole, gradients_of, in_two_processes
from fakes.views import save_view
from torch import Tensor

from retrodistill.base.config import TrainSettings
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.training.plan import TrainingPlan, plan_training
from retrodistill.stages.training.sources.labelled_scores import LabelledScores
from retrodistill.stages.training.sources.states import StateSource
from retrodistill.stages.training.sources.teacher import TeacherSource

BATCH = 8
OBJECTIVES = {
    "states": "hidden-mse + attention-relations",
    "labelled stores": "listwise-kl + 0.5*listwise-kl(teacher_scores=second.scores)",
    "views": "listwise-kl + batch-kl(student_temperature=1) + embed-distill",
    "simcse": "simcse",
    "frozen queries": "embed-distill",
}


def runs() -> tuple[Run, Run]:
    """Return two teachers' scores of lists that share documents, and those are other ones."""
    first, second = {}, {}
    for number in range(BATCH):
        docs = [f"d{number}", *(f"d{30 + (3 * number + step) % 12}" for step in range(5))]
        first[f"q{number}"] = {doc: 2.0 - 0.3 * place for place, doc in enumerate(docs)}
        second[f"q{number}"] = {doc: 0.1 * (place**2 % 7) for place, doc in enumerate(docs)}
    return Run.from_dict(first), Run.from_dict(second)


def planned(case: str, data: Path, models: Mapping[str, Path]) -> TrainingPlan:
    """Return the plan of one batch of a mechanism."""
    collection, (scores, second) = load_collection(f"beir:{data}"), runs()
    encoder = DenseEncoder(models["teacher"], precision="float32")
    sources: dict[str, list[Any]] = {
        "states": [StateSource(str(models["body"]))],
        "labelled stores": [scores, LabelledScores(second, label="second")],
        "views": [scores, encoder, TeacherSource(f"bi-encoder:{models['teacher']}")],
        "simcse": [],
        "frozen queries": [encoder],
    }
    if case == "views":
        collection = collection.view("backwards").taught_by(collection)
    frozen = case == "frozen queries"
    settings = TrainSettings(
        objective=OBJECTIVES[case],
        batch_size=BATCH,
        max_steps=1,
        candidates_per_query=4,
        query_tokens=16,
        doc_tokens=32,
        precision="float32",
        teacher_precision="float32",
        freeze="query" if frozen else None,
        doc_student=str(models["student"]) if frozen else None,
    )
    return plan_training(
        collection, models["student"], Path("unused"), sources=sources[case], settings=settings
    )


@contextmanager
def other_pass(task: Any) -> Iterator[None]:
    """Let the second pass of each text lack other dimensions than the first one, instead of
    dropout, whose random numbers are those of a process.
    """
    encode, passes = task.encode, []

    def counted(chunks: Any, side: Any) -> Any:
        passes.append(side)
        return encode(chunks, side)

    def thinned(module: Any, args: Any, output: Tensor) -> Tensor:
        kept = torch.ones(output.shape[-1])
        kept[len(passes) > 2 :: 3] = 0.0
        return output * kept

    task.encode = counted
    hook = task.model[0].model.embeddings.register_forward_hook(thinned)
    yield
    hook.remove()
    task.encode = encode


def of_one_process(
    rank: int, world: int, data: Path, models: Mapping[str, Path]
) -> dict[str, dict[str, Tensor]]:
    """Return the losses and the gradients of each mechanism, of this process's share."""
    torch.set_num_threads(1)
    results = {}
    for case in OBJECTIVES:
        plan = planned(case, data, models)
        plan.task.eval()
        # of texts alone, the first process has documents and no query
        batch = [plan.schedule[row] for row in range(BATCH)]
        items = sorted(batch, key=lambda item: getattr(item, "side", ""))
        share = BATCH // world
        inputs = plan.collate(items[rank * share : (rank + 1) * share])
        with other_pass(plan.task) if case == "simcse" else nullcontext():
            plan.task(**inputs)["loss"].backward()
        losses = {name: torch.tensor(value) for name, value in plan.task.losses.items()}
        results[case] = losses | gradients_of(plan.task)
    return results


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Any]:
    """What two processes give, and what one gives, for every mechanism."""
    folder = tmp_path_factory.mktemp("two-processes")
    data = save_small_collection(folder / "data")
    save_view(data, "backwards")
    models = {
        "student": save_tiny_model(folder / "student", layers=2),
        "teacher": save_tiny_model(folder / "teacher", layers=1, seed=1),
        "body": save_tiny_body(folder / "body", layers=4, dimension=48, seed=1),
    }
    return in_two_processes(of_one_process, data, models), of_one_process(0, 1, data, models)


@pytest.mark.slow
@pytest.mark.parametrize("case", OBJECTIVES)
def test_two_processes_are_one(case: str, found: tuple[list[Any], Any]) -> None:
    """Signals of another process's texts, texts that count twice, or negatives that are missed."""
    halves, whole = found
    assert sum(bool(tensor.any()) for tensor in whole[case].values()) > 10
    assert_halves_are_the_whole([half[case] for half in halves], whole[case])
    first, second = (half[case] for half in halves)
    assert any(not torch.allclose(first[name], second[name], rtol=1e-2) for name in first)
