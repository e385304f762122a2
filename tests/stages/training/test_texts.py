"""Objectives of vectors alone learn from every text, without labels and without candidates."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes.models import save_tiny_model

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.models.students.batches import TrainingText
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.objectives.objective import parse_objective
from retrodistill.stages.training import train_student
from retrodistill.stages.training.examples import TextSchedule
from retrodistill.stages.training.material import gather_material
from retrodistill.train import main

SHORT = TrainSettings(
    batch_size=16,
    epochs=3,
    query_tokens=16,
    doc_tokens=32,
    dropout=0.0,
    learning_rate=3e-3,
    precision="float32",
)


@pytest.fixture(scope="module")
def unlabelled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small collection without any judgement."""
    copied = tmp_path_factory.mktemp("unlabelled") / "data"
    shutil.copytree(folder, copied)
    shutil.rmtree(copied / "qrels")
    return copied


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a teacher of 48 dimensions."""
    return save_tiny_model(tmp_path_factory.mktemp("teacher"), dimension=48, seed=1)


@pytest.mark.parametrize("recipe", ["leaf", "ckd", "embed-distill", "rkd"])
def test_a_recipe_of_vectors_learns_from_a_collection_of_texts(
    recipe: str,
    unlabelled: Path,
    tiny_model: Path,
    teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Recipes that need neither labels nor candidates, and are refused without them."""
    words = f"--recipe {recipe} --data beir:{unlabelled} --student {tiny_model} "
    words += f"--vectors {teacher} --batch-size 16 --epochs 3 --query-tokens 16 --doc-tokens 32 "
    words += (
        f"--queue 8 --dropout 0 --learning-rate 1e-3 --precision float32 --out {tmp_path / 's'}"
    )
    assert main(words.split()) == 0
    messages = capsys.readouterr().err
    assert "32 queries and 60 documents, 18 steps of 16 texts" in messages
    details = Manifest.read(tmp_path / "s", kind="student").details
    assert (details["queries"], details["documents"], details["steps"]) == (32, 60, 18)
    names = {*details["losses"][0]} - {"step"}
    rows = np.array([[row[name] for name in names] for row in details["losses"]])
    assert (rows[-6:].mean(0) < rows[:6].mean(0)).all()
    if recipe == "rkd":  # the student's space is its own
        assert "teacher_cosine" not in details
    else:
        assert 0 < details["teacher_cosine"] <= 1
        assert f"{details['teacher_cosine']:.3f}" in messages
    assert ("cannot replace its teacher" in messages) == (recipe == "leaf")


def test_the_reported_cosine_is_that_of_the_saved_student(
    collection: Collection, tiny_model: Path, teacher: Path, tmp_path: Path
) -> None:
    """A mean cosine of the training's own tensors, or of the vectors before the projection."""
    encoder = DenseEncoder(teacher, precision="float32")
    settings = TrainSettings(
        objective="leaf",
        batch_size=16,
        max_steps=6,
        dropout=0.0,
        learning_rate=3e-3,
        precision="float32",
        doc_tokens=64,
    )
    out = train_student(
        collection, tiny_model, tmp_path / "s", sources=[encoder], settings=settings
    )
    student = DenseEncoder(out, precision="float32", max_tokens=64)
    queries = collection.queries.full_texts(
        collection.queries.rows(collection.query_ids("train"))
    )  # the test queries are not trained on
    docs = collection.docs.full_texts()
    cosines = np.concatenate(
        [
            (student.encode_queries(queries) * encoder.encode_queries(queries)).sum(1),
            (student.encode_docs(docs) * encoder.encode_docs(docs)).sum(1),
        ]
    )
    assert Manifest.read(out).details["teacher_cosine"] == pytest.approx(cosines.mean(), abs=1e-5)


def test_every_text_comes_once_an_epoch_and_queries_are_spread() -> None:
    """Documents outside candidate lists that are never seen, or batches of queries alone."""
    queries = np.array([3, 5, 8, 9])
    schedule = TextSchedule(queries, 40, 88, seed=0)
    epochs = [[schedule[index] for index in range(start, start + 44)] for start in (0, 44)]
    whole = {TrainingText("query", row) for row in queries.tolist()}
    whole |= {TrainingText("document", row) for row in range(40)}
    assert [set(epoch) for epoch in epochs] == [whole, whole]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        positions = [index for index, text in enumerate(epoch) if text.side == "query"]
        assert min(np.diff(positions)) > 5
    assert TextSchedule(queries, 40, 88, seed=0)[87] == epochs[1][-1]
    assert {text.side for text in TextSchedule(queries[:0], 3, 3, seed=0)} == {"document"}


def test_queries_of_other_splits_are_not_among_the_texts(collection: Collection) -> None:
    """Test queries whose teacher vectors are learned, because no label was needed for it."""
    terms = parse_objective("leaf")
    material = gather_material(collection, "train", None, terms, SHORT)
    assert material.lists is None
    assert collection.queries.ids(material.queries) == collection.query_ids("train")
    every = TrainSettings(unlabelled_split=("test",))
    assert len(gather_material(collection, "train", None, terms, every).queries) == len(
        collection.queries
    )
    both = parse_objective("leaf + contrastive")
    assert gather_material(collection, "train", None, both, SHORT).lists is not None
    with pytest.raises(ConfigError, match="--query-order clusters orders queries with lists"):
        gather_material(collection, "train", None, terms, TrainSettings(query_order="clusters"))


def test_documents_alone_can_be_learned(
    collection: Collection, tiny_model: Path, teacher: Path, tmp_path: Path
) -> None:
    """A batch without any query that breaks the training."""
    from retrodistill.data.datasets.collection import Collection as Plain

    none = load_empty_queries(collection, tmp_path)
    documents = Plain("documents", docs=collection.docs, queries=none, judgements={})
    for objective in ("leaf + ckd", "rkd-distance + rkd-angle"):
        out = train_student(
            documents,
            tiny_model,
            tmp_path / objective,
            sources=[DenseEncoder(teacher)],
            settings=TrainSettings(batch_size=16, max_steps=2, queue=4, objective=objective),
        )
        losses = Manifest.read(out).details["losses"][-1]
        assert all(np.isfinite(value) for value in losses.values())


def load_empty_queries(collection: Collection, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Return the queries of a collection that has none."""
    folder = tmp_path / "empty"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d", "title": "", "text": "blood"}\n')
    (folder / "queries.jsonl").write_text("")
    return load_collection(f"beir:{folder}").queries
