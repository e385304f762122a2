"""Training between two views: who reads which texts, and what is refused.

The teacher reads a language whose words are spelled backwards, so a text shows who was to read it.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.models import save_tiny_model
from fakes.views import backwards, save_view
from numpy.typing import NDArray

from retrodistill import train
from retrodistill.base.config import TrainConfig, TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Pairs
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.objectives.recipes import load_recipe, recipe_names
from retrodistill.score import main as score
from retrodistill.stages.pipelines.verbs import fingerprints_read
from retrodistill.stages.training import train_student
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.plan import TrainingPlan, plan_training
from retrodistill.stages.training.sources.joint import JointTeacher
from retrodistill.stages.training.sources.teacher import TeacherSource

TINY = TrainSettings(
    objective="listwise-kl(student_temperature=0.05)",
    candidates_per_query=4,
    batch_size=4,
    max_steps=1,
    query_tokens=64,
    doc_tokens=128,
    precision="float32",
)
COMMAND = "--max-steps 1 --batch-size 4 --candidates-per-query 4 --query-tokens 16 --doc-tokens 32"


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BEIR folder of the small collection with the view `backwards`, and two like it."""
    copied = tmp_path_factory.mktemp("views") / "data"
    shutil.copytree(folder, copied)
    save_view(copied, "backwards")
    save_view(copied, "other", mark="other")
    save_view(copied, "rewritten", sides=["queries"])
    return copied


@pytest.fixture(scope="module")
def base(data: Path) -> Collection:
    return load_collection(f"beir:{data}")


@pytest.fixture(scope="module")
def view(base: Collection) -> Collection:
    return base.view("backwards")


@pytest.fixture(scope="module")
def stores(
    data: Path, scores: Run, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Score stores of the same pairs by view, made by the command."""
    folder = tmp_path_factory.mktemp("stores")
    scores.write(folder / "run")
    specs = {"own": f"beir:{data}", "backwards": f"beir:{data},view=backwards"}
    for name, spec in specs.items():
        words = f"--data {spec} --candidates {folder / 'run'} --teacher bi-encoder:{tiny_model}"
        assert score([*words.split(), "--out", str(folder / name)]) == 0
    return {name: folder / name for name in specs}


class Recording:
    """A teacher and an encoder that keeps the texts that it reads."""

    fingerprint = "recording"
    scale = "dot"
    unit = "pair"
    dimension = 32
    reads_alone = True

    def __init__(self) -> None:
        self.queries: set[str] = set()
        self.docs: set[str] = set()

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        self.queries |= {query.full_text for query in pairs.queries}
        self.docs |= {doc.full_text for doc in pairs.docs}
        return np.arange(len(pairs), dtype=np.float32) % 7


class RecordingEncoder(Recording):
    score = None  # type: ignore[assignment]

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.queries |= set(texts)
        return np.ones((len(texts), self.dimension), np.float32)

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.docs |= set(texts)
        return np.ones((len(texts), self.dimension), np.float32)


def words_of(texts: object) -> set[str]:
    return {word.lower() for text in texts for word in text.split()}  # type: ignore[attr-defined]


def words_read(plan: TrainingPlan) -> set[str]:
    """Return the words that the student reads in the whole training, from its tokens."""
    inputs = plan.collate(list(plan.schedule))
    return words_of(read(inputs, plan.task.model.tokenizer))


def read(inputs: Mapping[str, Any], tokenizer: Any) -> list[str]:
    """Return the texts whose tokens are in the inputs of a batch."""
    features = [chunk["features"] for side in ("queries", "docs") for chunk in inputs[side]]
    rows = [ids for feature in features for ids in feature["input_ids"].tolist()]
    texts: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return texts


def test_the_student_reads_its_view_and_the_teachers_read_theirs(
    base: Collection, view: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """One view read twice: a student of translations that learns the originals, or a live teacher
    and vectors of the language in which they are weak; a dev split that is measured on the
    teacher's texts.
    """
    own = words_of(text.full_text for side in (base.queries, base.docs) for text in side)
    taught = words_of(text.full_text for side in (view.queries, view.docs) for text in side)
    assert not own & taught
    live, encoder = Recording(), RecordingEncoder()
    settings = replace(
        TINY,
        objective="listwise-kl + batch-kl(student_temperature=1) + embed-distill",
        dev_split="test",
    )
    sources = [scores, live, encoder]
    for student, teacher in ((base, view), (view, base)):
        plan = plan_training(
            student.taught_by(teacher),
            tiny_model,
            tmp_path / "s",
            sources=sources,
            settings=settings,
        )
        plan.task(**plan.collate(list(plan.schedule)))
        assert words_read(plan) <= (own if student is base else taught)
        development = plan.development
        assert development is not None
        assert [query.id for query in development._queries] == student.query_ids("test")
        assert development._queries[0].full_text in set(
            student.queries.full_texts(range(len(student.queries)))
        )
        assert development._docs is student.docs
        expected = taught if teacher is view else own
        for recording in (live, encoder):
            assert words_of(recording.queries | recording.docs) <= expected
            assert len(recording.queries) == (24 if recording is encoder else 4)
            recording.queries.clear()
            recording.docs.clear()


def test_scores_of_the_teachers_view_are_the_ones_that_fit(
    data: Path, base: Collection, stores: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Scores of another view taken for the teacher's: the check of texts silently off."""
    words = f"--data beir:{data} --student {tiny_model} {COMMAND} --out {tmp_path}/"
    objective = "--objective listwise-kl(student_temperature=0.05)"

    def trains(flags: str, store: str, out: str) -> bool:
        command = f"{words}{out} {objective} --scores {stores[store]} {flags}"
        return train.main(command.split()) == 0

    assert not trains("", "backwards", "s")
    assert not trains("--student-view backwards", "backwards", "s")
    assert not trains("--teacher-view backwards", "own", "s")
    assert not trains("--teacher-view other", "backwards", "s")
    assert not trains("--teacher-view rewritten", "backwards", "s")
    assert trains("--teacher-view backwards", "backwards", "s")
    assert trains("--student-view backwards", "own", "t")
    assert trains("--student-view backwards --teacher-view backwards", "backwards", "u")
    for name, student, teacher in (("s", None, "backwards"), ("t", "backwards", None)):
        manifest = Manifest.read(tmp_path / name)
        assert manifest.config["student_view"] == student
        assert manifest.config["teacher_view"] == teacher
        assert manifest.inputs["collection"] == base.view(student).fingerprint
        assert manifest.inputs["teacher_view"] == base.view(teacher).fingerprint
        row = f"| {'student' if student else 'teacher'} view | `backwards` |"
        assert row in (tmp_path / name / "README.md").read_text()
    assert "teacher_view" not in Manifest.read(tmp_path / "u").inputs


def test_a_run_of_another_view_is_refused(
    base: Collection, view: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A dense retriever's scores of one view, from which a student learns as from another's."""
    scores.write(tmp_path / "run", inputs={"collection": view.fingerprint})
    sources = [Run.read(tmp_path / "run")]
    plan_training(base.taught_by(view), tiny_model, tmp_path / "s", sources=sources)
    with pytest.raises(DataError, match=r"another collection than data, or .*--teacher-view"):
        plan_training(base, tiny_model, tmp_path / "s", sources=sources)


def test_a_live_teacher_of_a_view_gives_what_it_scored_before_training(
    base: Collection,
    view: Collection,
    scores: Run,
    stores: dict[str, Path],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """Texts of the view under the rows of other documents."""
    teacher = TeacherSource(f"bi-encoder:{tiny_model}")
    settings = replace(TINY, objective="batch-kl(student_temperature=1)", batch_size=8)
    plan = plan_training(
        base.taught_by(view),
        tiny_model,
        tmp_path / "s",
        sources=[scores, teacher],
        settings=settings,
    )
    examples = list(plan.schedule)
    batch = plan.collate(examples)["batch"]
    (grid,) = teacher._grid(batch.queries, batch.docs)
    stored = Run.read(stores["backwards"]).to_dict()
    for query, row in zip(view.queries.ids(batch.queries), grid, strict=True):
        for doc, value in zip(view.docs.ids(batch.docs), row, strict=True):
            if doc in stored[query]:
                assert value == pytest.approx(stored[query][doc], abs=2e-2)


def test_a_joint_teacher_reads_and_is_measured_in_its_view(
    base: Collection, view: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Two models trained on one text, where one of them was to know the other language."""
    own = words_of(text.full_text for side in (base.queries, base.docs) for text in side)
    settings = replace(
        TINY,
        objective="listwise-kl(teacher_scores=joint.scores)",
        dev_split="test",
        teacher_tokens=128,
    )
    teacher = JointTeacher(f"bi-encoder:{save_tiny_model(tmp_path / 'm', layers=1)}")
    plan = plan_training(
        view.taught_by(base),
        tiny_model,
        tmp_path / "s",
        sources=[scores, teacher],
        settings=settings,
    )
    inputs = teacher.module._collate(list(plan.schedule))
    assert words_of(read(inputs, teacher.module.model.tokenizer)) <= own
    assert not words_read(plan) & own
    assert plan.development is not None
    assert plan.joint_development is not None
    assert plan.development._docs is view.docs
    assert plan.joint_development._docs is base.docs


def test_a_student_of_translations_follows_the_teachers_vectors_of_the_originals(
    base: Collection, view: Collection, tmp_path: Path
) -> None:
    """Parallel texts that are LEAF on one text: the loss falls, and the student stays a stranger to
    the other language.
    """
    model = save_tiny_model(tmp_path / "m", layers=2)
    teacher = DenseEncoder(str(model), precision="float32")
    settings = replace(
        TINY,
        objective=load_recipe("parallel-text").settings["objective"],
        batch_size=16,
        max_steps=60,
        learning_rate=3e-3,
    )
    out = train_student(
        view.taught_by(base), model, tmp_path / "s", sources=[teacher], settings=settings
    )
    student = DenseEncoder(str(out), precision="float32")
    originals, translations = base.docs.full_texts(), view.docs.full_texts()

    def cosine(encoder: DenseEncoder, other: NDArray[np.float32]) -> float:
        return float((encoder.encode_docs(translations) * other).sum(1).mean())

    target = teacher.encode_docs(originals)
    assert cosine(teacher, target) < 0.87
    assert cosine(student, target) > 0.93
    assert cosine(student, teacher.encode_docs(translations)) < 0.9
    recorded = Manifest.read(out).details["teacher_cosine"]
    assert recorded == pytest.approx(cosine(student, target), abs=0.02)


def test_the_dev_value_is_that_of_the_students_view(
    base: Collection, view: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Weights that are chosen by what nobody will search with."""
    settings = replace(TINY, dev_split="test")
    values = {}
    for name, student in (("own", base), ("view", view)):
        plan = plan_training(
            student.taught_by(base),
            tiny_model,
            tmp_path / "s",
            sources=[scores],
            settings=settings,
        )
        assert plan.development is not None
        values[name] = plan.development(plan.task.model)
    assert values["own"] != pytest.approx(values["view"])


def test_a_view_of_other_ids_is_refused(base: Collection, tmp_path: Path) -> None:
    """Rows that name one document to the teacher and another to the student."""
    reordered = tmp_path / "data"
    assert base.folder is not None
    shutil.copytree(base.folder, reordered)
    lines = (reordered / "corpus.jsonl").read_text().splitlines()
    (reordered / "corpus.jsonl").write_text("\n".join(reversed(lines)))
    other = load_collection(f"beir:{reordered}")
    assert {doc.id for doc in other.docs} == {doc.id for doc in base.docs}
    with pytest.raises(DataError, match="has other ids than data"):
        base.taught_by(other)


def test_the_record_of_a_training_has_the_words_of_both_views(
    base: Collection, view: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A test question that was trained on in translation, and counts as unseen."""
    out = train_student(
        view.taught_by(base), tiny_model, tmp_path / "s", sources=[scores], settings=TINY
    )
    records = Manifest.read(out).details["lineage"]["records"]
    assert [record["collection"] for record in records] == [view.name, base.name]
    assert records[0]["fingerprint"] != records[1]["fingerprint"]


def test_a_log_query_that_is_a_test_query_in_the_teachers_view_is_not_trained_on(
    data: Path, scores: Run, tmp_path: Path
) -> None:
    """Training on the test set through its translation."""
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    test = load_collection(f"beir:{data}").queries.get("q25").text
    for side, text in (("queries", "asked otherwise"), ("queries.backwards", backwards(test))):
        with (copied / f"{side}.jsonl").open("a") as rows:
            rows.write(json.dumps({"_id": "log", "text": text}) + "\n")
    collection = load_collection(f"beir:{copied}")
    run = Run.from_dict({**scores.to_dict(), "log": {"d1": 2.0, "d2": 1.0}})
    row = collection.queries.rows(["log"])[0]
    assert row in gather(collection, "train", run, pool=8).queries
    lists = gather(collection.taught_by(collection.view("backwards")), "train", run, pool=8)
    assert row not in lists.queries


def test_a_resumed_training_has_the_same_views(
    data: Path, stores: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """A second half of other texts; a step of a pipeline that overlooks a corrected translation."""
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    base = load_collection(f"beir:{copied}")
    run = Run.read(stores["own"])

    def record(student: Collection, teacher: Collection) -> dict[str, object]:
        plan = plan_training(
            student.taught_by(teacher), tiny_model, tmp_path / "s", sources=[run], settings=TINY
        )
        return dict(plan.record)

    view, other = base.view("backwards"), base.view("other")
    records = [record(base, base), record(view, base), record(other, base)]
    assert all(records.count(each) == 1 for each in records)
    config = TrainConfig(
        data=f"beir:{copied}", student=str(tiny_model), out=tmp_path / "s", teacher_view="backwards"
    )
    before = fingerprints_read("train", config)
    assert before == fingerprints_read("train", config)
    save_view(copied, "backwards", mark="corrected")
    assert before != fingerprints_read("train", config)


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).views])
def test_a_recipe_of_two_views_is_refused_with_one(
    name: str,
    data: Path,
    stores: dict[str, Path],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Plain KL, or plain LEAF, under the name of a method that is about two texts."""
    words = f"--recipe {name} --data beir:{data} --student {tiny_model} --out {tmp_path / 's'}"
    for views in ("", "--teacher-view other --student-view other"):
        assert train.main([*words.split(), *views.split()]) == 2
        assert "--teacher-view or --student-view" in capsys.readouterr().err


def test_an_unknown_view_is_found_before_the_model_is_loaded(
    data: Path,
    stores: dict[str, Path],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A misspelled view, trained on the collection's own texts."""
    words = f"--data beir:{data} --student {tiny_model} --scores {stores['own']} {COMMAND}"
    assert train.main([*words.split(), "--teacher-view", "backward", "--out", f"{tmp_path}/s"]) == 2
    assert "Did you mean 'backwards'" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        load_collection(f"beir:{data},view=backward")
