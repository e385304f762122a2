"""A training by two processes, as torchrun starts them, and what they share."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.corpus import save_small_collection
from fakes.encoders import save_tiny_late_interaction
from fakes.models import save_tiny_model
from fakes.processes import in_two_processes

from retrodistill.base.config import MineSettings, TrainSettings
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students import processes
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.processes import SharedRows, of_main
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.training.building import build_batches, build_task, load_student
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.examples import Schedule
from retrodistill.stages.training.material import Material
from retrodistill.stages.training.sources.scores import ScoreSource
from retrodistill.stages.training.sources.teacher import TeacherSource
from retrodistill.stages.training.sources.vectors import VectorSource

TEACHER = [ScoreSource(Run.from_dict({"q0": {"d0": 1.0}}))]
"""Gives the scores of the examples themselves."""


OBJECTIVE = (
    "contrastive(own_negatives=false) + soft-nn + listwise-kl-in-batch + m3-kd + in-batch-kl + ckd "
    "+ batch-kl + batch-margin-mse + listwise-kl(teacher_scores=again.scores) + embed-distill "
    "+ leaf + rkd-distance + rkd-angle + flops + class-mean-direction + arm + triplet "
    "+ mixed-negatives"
)


def test_a_document_of_two_processes_is_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own rows 4, 2 and another process's 2, 7, 4: two of the three are here already."""
    of_another = {torch.int64: torch.tensor([2, 7, 4]), torch.float32: torch.arange(6.0).view(3, 2)}
    monkeypatch.setattr(
        processes, "gathered", lambda tensor: torch.cat([tensor, of_another[tensor.dtype]])
    )
    shared = SharedRows(torch.tensor([4, 2]))
    assert shared.rows.tolist() == [4, 2, 7]
    tensor = torch.full((2, 2), 9.0)
    assert shared(tensor).tolist() == [[9.0, 9.0], [9.0, 9.0], [2.0, 3.0]]


def losses_of(data: Path, model: Path, rank: int, world: int) -> tuple[dict[str, float], Signals]:
    """Return the losses of this process's half of a batch whose queries share documents."""
    collection = load_collection(f"beir:{data}")
    shared = {f"d{number}": 1.0 / number for number in range(20, 26)}
    lists = {f"q{number}": {f"d{number}": 2.0, **shared} for number in range(6)}
    candidates = gather(collection, "train", Run.from_dict(lists), pool=6)
    schedule = Schedule(candidates, 6, per_query=3, seed=0)
    settings = TrainSettings(query_tokens=16, doc_tokens=32, queue=60)
    terms = parse_objective(OBJECTIVE)
    student = load_student("bi-encoder", str(model), torch.device("cpu"))
    vectors = VectorSource(DenseEncoder(model, precision="float32"))
    late = f"late-interaction:{model.parents[1] / 'late' / 'model'}"
    live = [TeacherSource(late), TeacherSource(late, label="again")]
    material = Material(collection=collection, queries=candidates.queries)
    for source in (vectors, *live):
        source.prepare(material, terms, settings)
    task = build_task(student, terms, settings, torch.float32, live).eval()
    seen: list[Signals] = []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    collate = build_batches(student, settings, collection, [*TEACHER, vectors, *live])
    task(**collate([schedule[index] for index in range(rank, 6, world)]))["loss"].backward()
    return task.losses, seen[0]


def of_one_process(rank: int, world: int, data: Path, model: Path) -> dict[str, Any]:
    """Return the losses of one process, its queue, its teacher's vectors, and the main's value."""
    losses, signals = losses_of(data, model, rank, world)
    vectors = {name: signals[name] for name in ("queue_vectors", "teacher_doc_vectors")}
    return {"losses": losses, "main": of_main(lambda: 7.0 + rank), **vectors}


@pytest.mark.slow
def test_two_processes_have_the_loss_of_one(tmp_path: Path) -> None:
    """A document that two processes hold, counted twice: as a negative of itself, or in a queue."""
    data = save_small_collection(tmp_path / "data")
    model = save_tiny_model(tmp_path / "model")
    save_tiny_late_interaction(tmp_path / "late", seed=1)
    halves = in_two_processes(of_one_process, data, model)
    whole, signals = losses_of(data, model, 0, 1)
    for name in whole:
        mean = np.mean([half["losses"][name] for half in halves])
        assert mean == pytest.approx(whole[name], rel=1e-5), name
    for half in (*halves, signals):
        vectors = torch.cat([half["queue_vectors"], half["teacher_doc_vectors"]])
        assert len(vectors) == len(vectors.unique(dim=0)) == 60
    assert [half["main"] for half in halves] == [7.0, 7.0]


@pytest.mark.slow
def test_two_processes_train_one_student(tiny_model: Path, tmp_path: Path) -> None:
    """Two processes that write into one folder, wait for each other, or see the same queries."""
    data = save_small_collection(tmp_path / "data")
    run = mine_candidates(
        load_collection(f"beir:{data}"),
        "train",
        settings=MineSettings(depth=20, add_positives=True),
    )
    run.write(tmp_path / "scores")
    words = f"--data beir:{data} --scores {tmp_path / 'scores'} --student {tiny_model} "
    words += f"--out {tmp_path / 's'} --batch-size 4 --max-steps 6 --candidates-per-query 4 "
    words += "--query-tokens 16 --doc-tokens 32 --save-steps 3 --learning-rate 1e-3 "
    words += "--objective listwise-kl-in-batch+contrastive"
    launch = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2"
    command = f"{launch} -m retrodistill.train {words}".split()
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "6 steps of 8 queries" in done.stderr
    losses = Manifest.read(tmp_path / "s", kind="student").details["losses"]
    assert losses[-1]["step"] == 6
    assert losses[-1]["contrastive"] < losses[0]["contrastive"]
    assert not (tmp_path / "s.checkpoints").exists()
