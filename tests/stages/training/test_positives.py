"""Which documents are a query's positives, and how many of them a batch sees."""

from pathlib import Path

import numpy as np
import pytest
import torch

from retrodistill.base.config import TrainSettings
from retrodistill.base.config.train import Positives
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.base.registry import LOSSES
from retrodistill.data.datasets import Collection
from retrodistill.data.datasets.collection import Collection as Plain
from retrodistill.data.store.runs import Run
from retrodistill.objectives.objective import (
    LossTerm,
    Signals,
    bind,
    needs_of,
    parse_objective,
)
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import build_batches, build_task, load_student
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.examples import Schedule
from retrodistill.stages.training.sources.scores import ScoreSource

TEACHER = [ScoreSource(Run.from_dict({"q0": {"d0": 1.0}}))]
"""Gives the scores of the examples themselves."""


CPU = torch.device("cpu")
RELEVANT = ("d0", "d1", "d2", "d3")


@pytest.fixture(scope="module")
def several(collection: Collection) -> Collection:
    """A collection whose three labelled queries have four relevant documents each."""
    labels = {f"q{number}": dict.fromkeys(RELEVANT, 1) for number in range(3)}
    return Plain(
        "several",
        docs=collection.docs,
        queries=collection.queries,
        judgements={"train": lambda: labels},
    )


@pytest.fixture(scope="module")
def lists() -> Run:
    """The relevant documents among ten candidates; q9 has no label."""
    scored = {f"d{number}": float(10 - number) for number in range(10)}
    return Run.from_dict(dict.fromkeys(("q0", "q1", "q2", "q9"), scored))


def ids(collection: Collection, docs: np.ndarray) -> list[str]:
    return collection.docs.ids(docs)


def test_several_positives_of_a_query_are_drawn_and_labelled(
    several: Collection, lists: Run
) -> None:
    """A loss of several positives that only ever sees one: it is InfoNCE under another name."""
    candidates = gather(several, "train", lists, pool=16)
    schedule = Schedule(candidates, 400, per_query=6, positives=3, seed=0)
    firsts = set()
    for example in (schedule[index] for index in range(400)):
        docs = ids(several, example.docs)
        assert len(docs) == len(set(docs)) == 6
        if several.queries[example.query].id == "q9":
            assert not example.labels.any()
            assert docs[0] == "d0"
            continue
        assert example.labels.tolist() == [True] * 3 + [False] * 3
        assert set(docs[:3]) < set(RELEVANT)
        assert not set(docs[3:]) & set(RELEVANT)
        scored = dict(zip(docs, example.teacher_scores.tolist(), strict=True))
        assert all(score == 10 - int(doc[1:]) for doc, score in scored.items())
        firsts.add(docs[0])
    assert firsts == set(RELEVANT)
    (example_of_one,) = (Schedule(candidates, 1, per_query=6, seed=0)[0],)
    assert example_of_one.labels.sum() <= 1


def test_the_soft_nearest_neighbours_are_not_infonce(
    several: Collection, lists: Run, tiny_model: Path
) -> None:
    """Several positives in the list that do not reach the loss."""
    settings = TrainSettings(query_tokens=16, doc_tokens=32, positives_per_query=3)
    labelled = lists.select(["q0", "q1", "q2"])
    schedule = Schedule(
        gather(several, "train", labelled, pool=16), 3, per_query=6, positives=3, seed=0
    )
    examples = [schedule[index] for index in range(3)]
    model = load_student("bi-encoder", str(tiny_model), CPU)
    terms = parse_objective("soft-nn + contrastive")
    seen: list[Signals] = []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task = build_task(model, terms, settings, torch.float32).eval()
    task._objective = spy
    task(**build_batches(model, settings, several, TEACHER)(examples))
    assert seen[0]["batch_labels"].sum(1).tolist() == [3, 3, 3]
    assert task.losses["contrastive"] - task.losses["soft-nn"] > 0.1


def test_the_teachers_best_document_is_the_positive_of_every_query(
    several: Collection, lists: Run
) -> None:
    """`positives=teacher` that still takes the labels, or a best document without a label."""
    swapped = {query: docs | {"d7": 99.0} for query, docs in lists.to_dict().items()}
    candidates = gather(several, "train", Run.from_dict(swapped), pool=16, positives="teacher")
    assert candidates.labelled.all()
    schedule = Schedule(candidates, 40, per_query=10, seed=0)
    for example in (schedule[index] for index in range(40)):
        docs = ids(several, example.docs)
        assert docs[0] == "d7"
        relevant = {"d7"} if several.queries[example.query].id == "q9" else {"d7", *RELEVANT}
        marked = {doc for doc, label in zip(docs, example.labels, strict=True) if label}
        assert marked == relevant
        assert set(ids(several, np.array(sorted(example.relevant)))) == relevant


def test_the_teachers_best_document_is_the_positive_where_there_is_no_label(
    several: Collection, lists: Run
) -> None:
    """A labelled query whose positive the teacher replaces, or an unlabelled one without any."""
    swapped = {query: docs | {"d7": 99.0} for query, docs in lists.to_dict().items()}
    run = Run.from_dict(swapped)
    candidates = gather(several, "train", run, pool=16, positives="labels-or-teacher")
    assert candidates.labelled.all()
    assert gather(several, "train", run, pool=16).labelled.tolist() == [True, True, True, False]
    schedule = Schedule(candidates, 40, per_query=10, positives=3, seed=0)
    for example in (schedule[index] for index in range(40)):
        marked = set(ids(several, example.docs[example.labels]))
        if several.queries[example.query].id == "q9":
            assert marked == {"d7"}
            assert ids(several, example.docs)[0] == "d7"
            assert set(ids(several, np.array(sorted(example.relevant)))) == {"d7"}
        else:
            assert "d7" not in marked
            assert len(marked & set(ids(several, example.docs[:3]))) == 3
            assert set(ids(several, np.array(sorted(example.relevant)))) == set(RELEVANT)


def test_labels_where_there_are_some_need_scores_and_no_label() -> None:
    """A list of needs that sends away a query log, or trains on it without a teacher."""
    settings = TrainSettings(objective="contrastive", positives="labels-or-teacher")
    assert needs_of(settings) == ("--scores",)
    assert "--positives labels-or-teacher" in settings.flags_of_scores


OF_LISTS = [
    name
    for name in LOSSES
    if {*LossTerm(name=name).signals}
    <= {
        "student_scores",
        "teacher_scores",
        "mask",
        "labels",
        "trusted_negatives",
        "log_weights",
        "batch_scores",
        "batch_candidates",
        "batch_labels",
        "batch_mask",
    }
]
"""Losses of scores and labels: what a query log can be trained with."""


@pytest.mark.parametrize("positives", ["labels", "labels-or-teacher", "teacher"])
@pytest.mark.parametrize("labelled", [True, False])
def test_every_loss_of_lists_trains_on_several_positives_and_on_none(
    positives: Positives,
    labelled: bool,
    several: Collection,
    lists: Run,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """NaN, or an error in the first step, of queries with three positives beside those of none."""
    assert len(OF_LISTS) > 15
    run = lists if labelled else lists.select(["q9"])
    names = [name for name in OF_LISTS if labelled or positives != "labels" or not labels(name)]
    settings = TrainSettings(
        objective=" + ".join(names),
        positives=positives,
        positives_per_query=3,
        candidates_per_query=8,
        batch_size=4,
        max_steps=2,
        query_tokens=16,
        doc_tokens=32,
        precision="float32",
    )
    out = train_student(several, tiny_model, tmp_path / "s", sources=[run], settings=settings)
    rows = Manifest.read(out).details["losses"]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    one_query = {"contrastive-over-queries"} if not labelled else set()  # nothing to choose from
    assert all(rows[0][name] > 0 for name in {*names} - one_query)


def labels(name: str) -> bool:
    """Tell whether a loss learns from labels alone."""
    return bool({"labels", "batch_labels"} & {*LossTerm(name=name).signals})


def test_only_positives_cannot_be_asked_for(collection: Collection, tmp_path: Path) -> None:
    """A list of positives alone, from which no loss can learn."""
    with pytest.raises(ConfigError, match="--positives-per-query 4 leaves no negative"):
        TrainSettings(candidates_per_query=4, positives_per_query=4)
    settings = TrainSettings(positives="teacher", objective="contrastive")
    with pytest.raises(ConfigError, match="--positives teacher needs teacher scores"):
        train_student(collection, "nowhere", tmp_path / "s", settings=settings)
