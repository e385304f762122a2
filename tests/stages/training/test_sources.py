"""What a student is trained from: the texts that were scored, queries that none measures with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrodistill.base.config import MineSettings, TrainConfig, TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.base.registry import SIGNAL_SOURCES
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.teachers.runs import RunTeacher
from retrodistill.objectives.objective import shape_of
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import score_candidates
from retrodistill.stages.training import train_student
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.sources.labelled_scores import LabelledScores
from retrodistill.stages.training.sources.scores import ScoreSource
from retrodistill.train import main

TINY = TrainSettings(
    candidates_per_query=4, batch_size=4, max_steps=1, query_tokens=16, doc_tokens=32
)


@pytest.fixture(scope="module")
def store(collection: Collection, scores: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Score store of the train queries."""
    out = tmp_path_factory.mktemp("store") / "scores"
    score_candidates(collection, scores, RunTeacher(scores), out)
    return out


@pytest.fixture(scope="module")
def reversed_texts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A collection of the same ids, each of which names another text."""
    copied = tmp_path_factory.mktemp("reversed") / "data"
    shutil.copytree(folder, copied)
    rows = [json.loads(line) for line in (copied / "corpus.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rows][::-1]
    lines = [json.dumps(row | {"text": text}) for row, text in zip(rows, texts, strict=True)]
    (copied / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    return load_collection(f"beir:{copied}")


def test_scores_of_other_texts_are_refused(
    collection: Collection,
    reversed_texts: Collection,
    store: Path,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """A student that learns the scores of one corpus from the texts of another, silently."""
    scores = Run.read(store)
    ScoreSource(scores.select(["q3", "q4"])).check_texts(collection)
    message = r"made from other texts .* such as query 'q\d+' with document 'd\d+'.*--other-texts"
    with pytest.raises(DataError, match=message):
        train_student(reversed_texts, tiny_model, tmp_path / "s", sources=[scores], settings=TINY)
    with pytest.raises(DataError, match=message):
        LabelledScores(scores, label="ce").check_texts(reversed_texts)
    assert not (tmp_path / "s").exists()
    words = f"--data {reversed_texts.spec} --scores {store} --student {tiny_model} --max-steps 1 "
    words += f"--batch-size 2 --doc-tokens 16 --out {tmp_path / 's'}"
    assert main(words.split()) == 2
    assert main([*words.split(), "--other-texts"]) == 0


def test_texts_decide_rather_than_the_fingerprint_of_the_whole_collection(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    """Scores that are thrown away because a document was added that they do not name."""
    grown = tmp_path / "data"
    shutil.copytree(folder, grown)
    with (grown / "corpus.jsonl").open("a") as stream:
        stream.write(json.dumps({"_id": "new", "title": "", "text": "blood"}) + "\n")
    collection = load_collection(f"beir:{grown}")
    ScoreSource(Run.read(store)).check_texts(collection)


def test_a_run_of_another_collection_is_refused_and_a_plain_file_is_said_to_be_unchecked(
    collection: Collection,
    reversed_texts: Collection,
    scores: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mined run whose ids are those of another collection, or a file taken for a checked one."""
    scores.write(tmp_path / "run", inputs={"collection": collection.fingerprint})
    run = Run.read(tmp_path / "run")
    ScoreSource(run).check_texts(collection)
    assert not capsys.readouterr().err
    with pytest.raises(DataError, match="was made from another collection"):
        ScoreSource(run).check_texts(reversed_texts)
    scores.to_trec(tmp_path / "run.trec")
    ScoreSource(Run.read(tmp_path / "run.trec")).check_texts(collection)
    assert "cannot be checked" in capsys.readouterr().err


def test_queries_that_another_split_judges_are_skipped_unless_they_are_asked_for(
    collection: Collection, scores: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training on the test queries, because they were scored too."""
    both = Run.from_dict(
        scores.to_dict()
        | mine_candidates(collection, "test", settings=MineSettings(depth=9)).to_dict()
    )
    train, test = (set(collection.query_ids(split)) for split in ("train", "test"))

    def trained(**changes: object) -> set[str]:
        lists = gather(collection, "train", both, pool=8, **changes)  # type: ignore[arg-type]
        return set(collection.queries.ids(lists.queries))

    assert trained() == train
    messages = capsys.readouterr().err
    assert "8 queries are skipped: split 'test' judges them" in messages
    assert "--unlabelled-split test" in messages
    assert trained(unlabelled_splits=["test"]) == train | test
    assert trained(unlabelled_splits=["test"], dev_split="test") == train
    lists = gather(collection, "train", both, pool=8, unlabelled_splits=["test"])
    rows = collection.queries.rows(sorted(test))
    assert not lists.labelled[np.isin(lists.queries, rows)].any()
    with pytest.raises(ConfigError, match="no split 'nowhere'"):
        trained(unlabelled_splits=["nowhere"])


def test_queries_that_no_split_judges_are_trained_on(
    folder: Path, scores: Run, tmp_path: Path
) -> None:
    """A query log that is taken for another split's queries, or holds them under other ids."""
    copied = tmp_path / "data"
    shutil.copytree(folder, copied)
    rows = [json.loads(line) for line in (copied / "queries.jsonl").read_text().splitlines()]
    rows += [
        {"_id": "log", "text": "blood pressure"},
        {"_id": "asked-before", "text": "  " + rows[-1]["text"].upper()},
    ]
    (copied / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    collection = load_collection(f"beir:{copied}")
    assert rows[-3]["_id"] in collection.query_ids("test")
    candidates = {"d1": 2.0, "d2": 1.0}
    run = Run.from_dict(scores.to_dict() | dict.fromkeys(["log", "asked-before"], candidates))
    queries = collection.queries.ids(gather(collection, "train", run, pool=8).queries)
    assert "log" in queries
    assert "asked-before" not in queries


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--objective margin-mse", "needs teacher scores: give --scores"),
        ("--objective embed-distill", "needs a teacher's vectors: give --vectors"),
        ("--objective preference-kl --scores S", "needs preferences: give --preferences"),
        (
            "--objective contrastive --negative-sampling simans",
            "--negative-sampling simans needs teacher scores",
        ),
        (
            "--objective contrastive --query-order hard-first",
            "--query-order hard-first needs teacher scores",
        ),
        ("--objective contrastive --positives teacher", "--positives teacher needs teacher"),
        ("--objective contrastive --false-negatives 0.9", "--false-negatives needs teacher"),
        ("--objective contrastive --dev-split train", "is trained on"),
        (
            "--objective contrastive --query-order clusters --student-kind sparse",
            "needs one vector for a query",
        ),
        (
            "--objective contrastive --negative-sampling nowhere --scores S",
            "unknown negative sampling 'nowhere'",
        ),
    ],
)
def test_what_is_absent_is_found_before_anything_is_read(
    words: str, message: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An input that is found to be absent when the models are in memory."""
    (tmp_path / "S").mkdir()
    words = words.replace("--scores S", f"--scores {tmp_path / 'S'}")
    unread = f"--data beir:/nowhere --student {tiny_model} --out {tmp_path / 's'}"
    assert main([*words.split(), *unread.split()]) == 2
    assert message in capsys.readouterr().err


def test_an_output_that_exists_is_found_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An --out that is refused after the collection, the scores and the teacher were loaded."""
    words = f"--data beir:/nowhere --student /nowhere --vectors /nowhere --out {tmp_path}"
    assert main(words.split()) == 2
    assert "exists already" in capsys.readouterr().err


def test_known_absent_labels_are_found_before_the_model_is_loaded(
    collection: Collection, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An objective of labels that fails in its first step, or trains on nothing."""
    unlabelled = mine_candidates(collection, "test", settings=MineSettings(depth=9))
    settings = TrainSettings(unlabelled_split=("test",), objective="listwise-kl + contrastive")
    with pytest.raises(DataError, match=r"none of 8 queries has a relevant document.*--positives"):
        train_student(
            collection, "nowhere", tmp_path / "s", sources=[unlabelled], settings=settings
        )
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[unlabelled],
        settings=replace(settings, batch_size=4, max_steps=1, doc_tokens=16, positives="teacher"),
    )
    assert Manifest.read(out).details["losses"][0]["contrastive"] > 0
    assert "labels; the others" not in capsys.readouterr().err


def test_labels_are_looked_up_all_at_once(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds of look-ups, one a document, before each training."""
    calls = []
    find = type(collection.docs).find

    def counted(self: object, ids: list[str]) -> object:
        calls.append(len(ids))
        return find(self, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(type(collection.docs), "find", counted)
    lists = gather(collection, "train", None, pool=8)
    assert len(lists) == 24
    assert len(calls) < 6


@pytest.mark.parametrize("name", list(SIGNAL_SOURCES))
def test_every_source_has_its_flag_and_known_signals(name: str) -> None:
    """A source that no flag opens, or whose signals no loss can ask for."""
    source = SIGNAL_SOURCES[name]
    assert source.name == name
    assert name.replace("-", "_") in TrainConfig.__dataclass_fields__
    assert all(shape_of(signal) for signal in source.gives)
