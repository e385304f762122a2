"""From scores to a student: what is in a batch, and what a killed training leaves."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from retrodistill.base.config import MineSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.batches import RetrieverBatch
from retrodistill.models.students.dense import DenseEncoder, load_bi_encoder
from retrodistill.models.students.kinds.dense import BiEncoderTask
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.training import TrainSettings, train_student
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.examples import Schedule
from retrodistill.stages.training.resuming import last_checkpoint
from retrodistill.stages.training.sources.scores import ScoreSource

TEACHER = [ScoreSource(Run.from_dict({"q0": {"d0": 1.0}}))]
"""Gives the scores of the examples themselves."""

SMALL = TrainSettings(
    candidates_per_query=4, batch_size=4, max_steps=4, doc_tokens=32, query_tokens=16
)


def collator(collection: Collection, model: Path, **changes: object) -> RetrieverBatch:
    loaded = load_bi_encoder(str(model), torch.device("cpu"))
    settings = dataclasses.replace(SMALL, batch_tokens=64, **changes)  # type: ignore[arg-type]
    return RetrieverBatch(loaded, collection, settings, TEACHER)


def seen_signals(model: SentenceTransformer, inputs: dict[str, Any]) -> Signals:
    """Return what an objective sees of a batch."""
    seen = Signals()

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.update(signals)
        return bind(parse_objective("listwise-kl"))(signals)

    BiEncoderTask(model, spy, torch.float32)(**inputs)
    return seen


def test_an_item_of_the_schedule_does_not_depend_on_what_was_drawn_before(
    collection: Collection, scores: Run
) -> None:
    """A resumed training that draws other negatives than the undisturbed one."""
    candidates = gather(collection, "train", scores, pool=16)
    forward = Schedule(candidates, 100, per_query=4, seed=3)
    items = [forward[index] for index in range(100)]
    repeated = Schedule(candidates, 100, per_query=4, seed=3)
    for index in (99, 0, 57, 24, 23):
        assert repeated[index].query == items[index].query
        assert (repeated[index].docs == items[index].docs).all()
    assert {item.query for item in items[:24]} == {item.query for item in items[24:48]}
    assert [i.query for i in items[:24]] != [i.query for i in items[24:48]]


def test_a_list_holds_one_positive_first_and_no_other_relevant_document(
    collection: Collection, scores: Run
) -> None:
    """A relevant document drawn as its own query's negative."""
    for example in Schedule(gather(collection, "train", scores, pool=16), 48, per_query=4, seed=0):
        assert example.labels.tolist() == [True, False, False, False]
        assert len(set(example.docs.tolist())) == 4
        query_scores = scores.to_dict()[collection.queries[example.query].id]
        ids = collection.docs.ids(example.docs)
        assert example.teacher_scores.tolist() == [np.float32(query_scores[doc]) for doc in ids]


def test_unlabelled_queries_learn_from_the_teacher_alone(
    collection: Collection, scores: Run
) -> None:
    """Queries without judgements that are thrown away, though they were scored."""
    unlabelled = mine_candidates(collection, "test", settings=MineSettings(depth=10))
    (chosen,) = {
        c.query: c
        for c in gather(
            collection,
            "train",
            unlabelled.select(["q24"]),
            pool=4,
            unlabelled_splits=["test"],
        )
    }.values()
    assert not chosen.relevant
    best = next(iter(unlabelled.to_dict()["q24"]))
    assert collection.docs.ids(chosen.positives) == [best]


def test_queries_whose_positive_was_not_scored_are_skipped_with_a_message(
    collection: Collection, scores: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A labelled query whose best negative is taught as its positive."""
    lists = scores.to_dict()
    del lists["q3"]["d3"]
    gathered = gather(collection, "train", Run.from_dict(lists), pool=16)
    assert "q3" not in {collection.queries[chosen.query].id for chosen in gathered}
    assert "1 queries are skipped" in capsys.readouterr().err
    only = Run.from_dict({"q3": lists["q3"]})
    with pytest.raises(DataError, match="can be trained on"):
        gather(collection, "train", only, pool=16)


def test_each_document_of_a_batch_is_encoded_once(
    collection: Collection, scores: Run, tiny_model: Path
) -> None:
    """Shared candidates that go through the encoder once a query."""
    schedule = Schedule(gather(collection, "train", scores, pool=16), 24, per_query=8, seed=0)
    examples = [schedule[index] for index in range(24)]
    inputs = collator(collection, tiny_model)(examples)
    encoded = sum(len(chunk["positions"]) for chunk in inputs["docs"])
    distinct = {doc for example in examples for doc in example.docs.tolist()}
    assert encoded == len(distinct) < 24 * 8
    for chunk in inputs["docs"]:
        assert chunk["features"]["input_ids"].numel() <= 64


def test_a_relevant_document_of_another_query_is_no_negative(
    collection: Collection, scores: Run, tiny_model: Path
) -> None:
    """In-batch false negatives: a document pushed away from a query that it answers."""
    schedule = Schedule(gather(collection, "train", scores, pool=16), 24, per_query=4, seed=0)
    example, neighbour = schedule[0], schedule[1]
    both = dataclasses.replace(example, relevant=example.relevant | neighbour.relevant)
    model = load_bi_encoder(str(tiny_model), torch.device("cpu"))
    seen = seen_signals(model, collator(collection, tiny_model)([both, neighbour]))
    mask, labels = seen["batch_mask"], seen["batch_labels"]
    assert (~mask[0]).sum() == 1
    assert labels.sum(1).tolist() == [1, 1]
    assert labels[1][~mask[0]].tolist() == [True]


def test_student_scores_are_those_of_the_plain_model(
    collection: Collection, scores: Run, tiny_model: Path
) -> None:
    """Vectors that return from the length-sorted chunks in another order."""
    model = load_bi_encoder(str(tiny_model), torch.device("cpu")).eval()
    schedule = Schedule(gather(collection, "train", scores, pool=16), 6, per_query=4, seed=0)
    examples = [schedule[index] for index in range(6)]
    seen = seen_signals(model, collator(collection, tiny_model)(examples))
    for row, example in enumerate(examples):
        texts = collection.docs.full_texts(example.docs)
        query = collection.queries[example.query].full_text
        expected = model.encode_query([query]) @ model.encode_document(texts).T
        np.testing.assert_allclose(seen["student_scores"][row].detach(), expected[0], atol=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        "listwise-kl(student_temperature=0.05)",
        "margin-mse",
        "contrastive",
        "listwise-kl-in-batch + 0.5*contrastive",
    ],
)
def test_training_lowers_the_loss(
    objective: str, collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A detached score or a frozen body: a loss that is logged but never falls."""
    settings = TrainSettings(
        candidates_per_query=4,
        batch_size=8,
        max_steps=40,
        doc_tokens=32,
        query_tokens=16,
        learning_rate=2e-3,
        dropout=0.0,
    )
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores],
        settings=dataclasses.replace(settings, objective=objective),
    )
    losses = Manifest.read(out, kind="student").details["losses"]
    for name in {*losses[0]} - {"step"}:
        assert losses[-1][name] < 0.8 * losses[0][name]


def test_a_student_is_a_plain_sentence_transformers_model(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A student that only this package can load."""
    settings = TrainSettings(keep_layers=(0, 5), max_steps=1, batch_size=2, dropout=0.0)
    out = train_student(collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings)
    model = SentenceTransformer(str(out), device="cpu")
    assert model.encode(["blood pressure"]).shape == (1, 32)
    assert model[0].auto_model.config.num_hidden_layers == 2
    manifest = Manifest.read(out, kind="student")
    assert manifest.inputs["scores"] == scores.fingerprint
    assert not (tmp_path / "s.checkpoints").exists()


def test_a_cross_encoder_student_learns_from_labels(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A cross-encoder whose saved head is not the one that was trained."""
    from sentence_transformers import CrossEncoder

    settings = TrainSettings(
        student_kind="cross-encoder",
        candidates_per_query=4,
        batch_size=8,
        max_steps=30,
        learning_rate=2e-3,
        doc_tokens=48,
        dropout=0.0,
    )
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "ce",
        sources=[scores],
        settings=dataclasses.replace(settings, objective="contrastive(temperature=1)"),
    )
    losses = Manifest.read(out).details["losses"]
    assert losses[-1]["contrastive"] < losses[0]["contrastive"]
    model = CrossEncoder(str(out), device="cpu")
    assert np.isfinite(model.predict([("blood pressure", "heart disease")])).all()


def test_embed_distill_follows_the_vectors_of_another_model(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Teacher vectors of other rows than the student's, which no loss curve would show."""
    encoder = DenseEncoder(tiny_model)
    settings = TrainSettings(
        keep_layers=(0, 1, 2, 3, 4, 5),
        max_steps=1,
        batch_size=4,
        candidates_per_query=4,
        dropout=0.0,
        learning_rate=0.0,
    )
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores, encoder],
        settings=dataclasses.replace(settings, objective="embed-distill"),
    )
    manifest = Manifest.read(out)
    assert manifest.details["losses"][0]["embed-distill"] == pytest.approx(0.0, abs=1e-4)
    assert manifest.inputs["vectors"] == encoder.fingerprint


def test_mistakes_are_explained_before_training(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A mistake that is found after the model was loaded, or after an hour of training."""
    with pytest.raises(ConfigError, match="needs teacher scores: give --scores"):
        train_student(
            collection, tiny_model, tmp_path / "s", settings=TrainSettings(objective="margin-mse")
        )
    with pytest.raises(ConfigError, match="give --vectors"):
        train_student(
            collection,
            tiny_model,
            tmp_path / "s",
            settings=TrainSettings(objective="embed-distill"),
        )
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        train_student(collection, tiny_model, tmp_path / "there", sources=[scores])
    with pytest.raises(ConfigError, match="no-such-model"):
        train_student(collection, "no-such-model", tmp_path / "s", sources=[scores])


def test_a_killed_training_resumes_bit_for_bit(
    folder: Path,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A resume that repeats batches, forgets the optimiser, or draws other dropout masks."""
    scores.write(tmp_path / "scores")
    settings = TrainSettings(
        batch_size=4,
        max_steps=60,
        candidates_per_query=4,
        save_steps=5,
        dropout=0.1,
        learning_rate=1e-3,
        precision="float32",
    )
    flags = "--precision float32 --batch-size 4 --max-steps 60 --candidates-per-query 4 "
    flags += "--save-steps 5 --dropout 0.1"
    command = [
        sys.executable,
        "-m",
        "retrodistill.train",
        "--data",
        f"beir:{folder}",
        "--scores",
        str(tmp_path / "scores"),
        "--student",
        str(tiny_model),
        "--out",
        str(tmp_path / "torn"),
        "--learning-rate",
        "1e-3",
        *flags.split(),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while not list((tmp_path / "torn.checkpoints").glob("checkpoint-1*/trainer_state.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "torn").exists()
    for name in ("torn", "whole"):
        train_student(
            collection,
            tiny_model,
            tmp_path / name,
            sources=[scores],
            settings=settings,
            resume=name == "torn",
        )
    torn, whole = Manifest.read(tmp_path / "torn"), Manifest.read(tmp_path / "whole")
    assert torn.fingerprint == whole.fingerprint
    assert "resumes from" in capsys.readouterr().err


def test_a_checkpoint_that_was_torn_is_passed_over(tmp_path: Path) -> None:
    """A kill in the middle of a checkpoint, after which no resume works any more."""
    for step, state in ((5, '{"step": 5}'), (100, '{"step": 100}'), (105, '{"st'), (110, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert last_checkpoint(tmp_path / "none") is None


def test_checkpoints_of_a_finished_student_are_removed(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """Gigabytes beside a student whose training was killed while it tidied up.

    Checkpoints that are newer than the student are those of a training that is to be resumed.
    """
    out, checkpoints = tmp_path / "student", tmp_path / "student.checkpoints"
    train_student(
        collection, tiny_model, out, settings=dataclasses.replace(SMALL, objective="contrastive")
    )
    state = checkpoints / "checkpoint-2" / "trainer_state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    with pytest.raises(ConfigError, match="exists already"):
        train_student(collection, tiny_model, out, settings=SMALL)
    assert state.exists()
    os.utime(state, (1, 1))
    with pytest.raises(ConfigError, match="exists already"):
        train_student(collection, tiny_model, out, settings=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
