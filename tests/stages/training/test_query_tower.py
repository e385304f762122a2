"""A query tower that is trained alone, against constant vectors of all documents."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import Collection
from retrodistill.data.rankings import perplexity
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.tasks import _is_among
from retrodistill.stages.training import train_student
from retrodistill.stages.training.plan import TrainingPlan, plan_training

ALONE = TrainSettings(
    freeze="document",
    compare="collection",
    objective="contrastive",
    batch_size=4,
    max_steps=3,
    learning_rate=1e-3,
    doc_tokens=32,
    dropout=0.0,
    precision="float32",
)


def first_value(plan: TrainingPlan, size: int = 4) -> float:
    """Return the loss of the first batch."""
    plan.task.eval()
    with torch.no_grad():
        batch = plan.collate([plan.schedule[position] for position in range(size)])
        return float(plan.task(**batch)["loss"])


def test_labels_are_compared_with_every_document(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """A softmax over the documents of the batch alone, which looks like one over all of them."""
    plan = plan_training(collection, tiny_model, tmp_path / "s", settings=ALONE)
    encoder = DenseEncoder(tiny_model, max_tokens=32, precision="float32")
    rows = [plan.schedule[position].query for position in range(4)]
    queries = encoder.encode_queries(collection.queries.full_texts(rows))
    logits = queries @ encoder.encode_docs(collection.docs.full_texts()).T / 0.05
    relevant = collection.relevant("train")
    terms = []
    for row, values in zip(rows, logits, strict=True):
        positives = collection.docs.rows(relevant[collection.queries[row].id])
        others = np.delete(values, positives)
        for positive in positives:
            all_values = np.concatenate([[values[positive]], others])
            terms.append(np.log(np.exp(all_values - values[positive]).sum()))
    assert first_value(plan) == pytest.approx(np.mean(terms), rel=1e-4)
    in_batch = dataclasses.replace(ALONE, compare="batch")
    assert first_value(plan_training(collection, tiny_model, tmp_path / "b", settings=in_batch)) < (
        first_value(plan) - 0.5
    )


def test_teacher_lists_are_compared_with_every_document(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A KL divergence over a query's own list, which leaves all other documents where they are."""
    settings = dataclasses.replace(
        ALONE,
        objective="listwise-kl-in-batch",
        candidates_per_query=20,
        pool=20,
        positives="teacher",
        teacher_perplexity=3.0,
    )
    plan = plan_training(
        collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings
    )
    temperature = plan.terms[0].settings["teacher_temperature"]
    encoder = DenseEncoder(tiny_model, max_tokens=32, precision="float32")
    docs = encoder.encode_docs(collection.docs.full_texts())
    terms = []
    for position in range(4):
        example = plan.schedule[position]
        query = encoder.encode_queries(collection.queries.full_texts([example.query]))[0]
        student = docs @ query / 0.05
        student -= np.log(np.exp(student - student.max()).sum()) + student.max()
        teacher = example.teacher_scores / temperature
        teacher = teacher - np.log(np.exp(teacher - teacher.max()).sum()) - teacher.max()
        terms.append((np.exp(teacher) * (teacher - student[example.docs])).sum())
    assert first_value(plan) == pytest.approx(np.mean(terms), rel=1e-4)
    lists = scores.select(collection.queries.ids(plan.material.queries)).top(21)
    assert np.median(perplexity(lists, temperature)) == pytest.approx(3.0, rel=0.01)


def test_documents_keep_their_vectors_and_are_not_encoded_again(
    collection: Collection, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents that move during the training, so that the index of the start is wrong for it."""
    start = DenseEncoder(tiny_model, max_tokens=32)
    plan_training(collection, tiny_model, tmp_path / "cache", settings=ALONE)

    def refuse(*arguments: object) -> None:
        raise AssertionError("a document was encoded")

    monkeypatch.setattr(DenseEncoder, "encode_docs", refuse)
    out = train_student(collection, tiny_model, tmp_path / "s", settings=ALONE)
    monkeypatch.undo()
    trained = DenseEncoder(out, max_tokens=32)
    assert trained.doc_fingerprint == start.doc_fingerprint
    texts = collection.docs.full_texts([0, 1])
    np.testing.assert_array_equal(trained.encode_docs(texts), start.encode_docs(texts))
    queries = ["blood pressure", "heart disease"]
    gap = np.abs(trained.encode_queries(queries) - start.encode_queries(queries)).max()
    assert gap > 1e-4


def test_the_dev_split_is_measured_as_a_search_would(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """Measuring by the constant vectors, in another order than the collection's."""
    settings = dataclasses.replace(ALONE, dev_split="test")
    plan = plan_training(collection, tiny_model, tmp_path / "s", settings=settings)
    assert plan.development is not None
    assert plan.development.doc_vectors is not None
    quick = plan.development.values(plan.task.model)
    plan.development.doc_vectors = None
    assert quick == plan.development.values(plan.task.model)


def test_rows_of_sets_are_those_of_a_comparison_of_all() -> None:
    """Labels that land on the wrong documents where rows are not in ascending order."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(50, generator=generator)[:20]
    sets = torch.randint(-1, 50, (6, 4), generator=generator)
    expected = (sets[:, :, None] == rows).any(1)
    assert torch.equal(_is_among(rows, sets), expected)
    assert expected.any()
    assert _is_among(rows[:0], sets).shape == (6, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": None}, "--compare collection needs --freeze document"),
        ({"freeze": "query", "compare": "batch"}, "--freeze query needs --doc-student"),
        ({"teacher_perplexity": 1.0}, "--teacher-perplexity must be above 1"),
    ],
)
def test_settings_that_do_not_fit_each_other(changes: dict[str, object], message: str) -> None:
    """Settings without an effect."""
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(ALONE, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "margin-mse"}, "--compare collection is for losses over the batch"),
        ({"teacher_perplexity": 2.0}, "needs teacher scores: give --scores"),
        ({"student_kind": "sparse", "compare": "batch"}, "--freeze is for --student-kind bi-enc"),
    ],
)
def test_settings_that_do_not_fit_the_training(
    collection: Collection,
    tiny_model: Path,
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    """A perplexity of no scores, and a frozen tower of a kind of student that has no towers."""
    settings = dataclasses.replace(ALONE, **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        plan_training(collection, tiny_model, tmp_path / "s", settings=settings)


def test_a_perplexity_and_a_temperature_exclude_each_other(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A temperature of the objective that the perplexity overrides without a word."""
    for objective, message in (
        ("listwise-kl-in-batch(teacher_temperature=2)", "give one of the two"),
        ("contrastive", "has none"),
    ):
        settings = dataclasses.replace(ALONE, objective=objective, teacher_perplexity=3.0)
        with pytest.raises(ConfigError, match=message):
            plan_training(
                collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings
            )


def test_a_cut_query_tower_leaves_the_documents_whole(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """Documents were read by the cut model too, so that no index of the whole one served them."""
    settings = dataclasses.replace(ALONE, keep_layers=(0,))
    plan = plan_training(collection, tiny_model, tmp_path / "s", settings=settings)
    whole = DenseEncoder(tiny_model, max_tokens=32, precision="float32")
    vectors = whole.encode_docs(collection.docs.full_texts())
    np.testing.assert_allclose(plan.task.doc_vectors, vectors, atol=1e-5)
    text = collection.queries.full_texts([0])
    cut = DenseEncoder(plan.task.model, max_tokens=32, precision="float32")
    assert np.abs(cut.encode_queries(text) - whole.encode_queries(text)).max() > 0.01
