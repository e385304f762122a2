"""Several score stores by label: each candidate keeps each teacher's score."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_cross_encoder

from retrodistill import train
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.teachers.runs import RunTeacher
from retrodistill.objectives.objective import parse_objective
from retrodistill.stages.reporting.chain import inputs_named
from retrodistill.stages.reporting.commands import command_of
from retrodistill.stages.scoring import score_candidates
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import build_batches, load_student
from retrodistill.stages.training.material import gather_material
from retrodistill.stages.training.sources.labelled_scores import LabelledScores
from retrodistill.stages.training.sources.scores import ScoreSource
from retrodistill.stages.training.sources.teacher import TeacherSource

OBJECTIVE = "listwise-kl + 0.5*listwise-kl(teacher_scores=ce.scores)"
TINY = TrainSettings(
    objective=OBJECTIVE,
    candidates_per_query=4,
    batch_size=4,
    max_steps=2,
    query_tokens=16,
    doc_tokens=32,
    dropout=0.0,
    precision="float32",
)


def other(scores: Run) -> Run:
    """Scores of the same pairs by another teacher, which ranks nearly the other way round."""
    lists = scores.to_dict()
    random = np.random.default_rng(0)
    return Run.from_dict(
        {
            query: {doc: -score + float(random.random()) for doc, score in docs.items()}
            for query, docs in lists.items()
        }
    )


def test_each_candidate_keeps_each_teachers_score(
    collection: Collection, scores: Run, tiny_model: Path
) -> None:
    """The second teacher's list in its own order, beside the candidates of the first."""
    second = other(scores)
    sources = [ScoreSource(scores), LabelledScores(second, label="ce")]
    terms = parse_objective(OBJECTIVE)
    material = gather_material(collection, "train", scores, terms, TINY)
    for source in sources:
        source.prepare(material, terms, TINY)
    model = load_student("bi-encoder", str(tiny_model), torch.device("cpu"))
    examples: Any = list(material.schedule(model, TINY))
    examples[0] = replace(
        examples[0],
        docs=examples[0].docs[:3],
        teacher_scores=examples[0].teacher_scores[:3],
        log_weights=examples[0].log_weights[:3],
        labels=examples[0].labels[:3],
    )
    signals = build_batches(model, TINY, collection, sources)(examples)["signals"]
    lists, lists_of_second = scores.to_dict(), second.to_dict()
    assert not signals["mask"].all()
    for row, example in enumerate(examples):
        query = collection.queries[example.query].id
        for column, doc in enumerate(collection.docs.ids(example.docs)):
            assert signals["teacher_scores"][row, column] == np.float32(lists[query][doc])
            assert signals["ce.scores"][row, column] == np.float32(lists_of_second[query][doc])
    assert not signals["ce.scores"][~signals["mask"]].any()


def test_a_candidate_without_a_score_is_named_before_training(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A score of 0 for what the second teacher has not scored, at the top of a list of logits."""
    partial = other(scores).top(3)
    with pytest.raises(
        DataError, match=r"scores \d+ of the \d+ candidates .*not query 'q\d+' with"
    ):
        train_student(
            collection,
            tiny_model,
            tmp_path / "s",
            sources=[scores, LabelledScores(partial, label="ce")],
            settings=TINY,
        )
    assert not (tmp_path / "s").exists()


def test_what_cannot_be_drawn_needs_no_score(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A store of the best candidates refused although --pool draws no others."""
    best = {
        query: {doc: docs[doc] for number, doc in enumerate(docs) if number < 5}
        for query, docs in scores.to_dict().items()
    }
    settings = replace(TINY, pool=3, positives="teacher")
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores, LabelledScores(Run.from_dict(best), label="ce")],
        settings=settings,
    )
    assert Manifest.read(out).details["losses"][0]["listwise-kl"] > 0


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_two_teachers_train_what_neither_trains_alone(
    kind: str, collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A second teacher whose term reads the first teacher's scores."""
    start = tiny_model if kind == "bi-encoder" else save_tiny_cross_encoder(tmp_path / "start")
    weighted = "confidence-weighted-kl(teachers=teacher_scores/5&ce.scores/5)"
    losses = []
    for number, objective in enumerate((OBJECTIVE, "1.5*listwise-kl", weighted)):
        sources = [scores, LabelledScores(other(scores), label="ce")]
        out = train_student(
            collection,
            start,
            tmp_path / f"{number}",
            sources=sources if "ce." in objective else sources[:1],
            settings=replace(TINY, objective=objective, student_kind=kind, dropout=None),
        )
        losses.append(sum(Manifest.read(out).details["losses"][0].values()))
    both, first_alone, mixed = losses
    assert both != pytest.approx(first_alone, rel=0.05)
    assert mixed not in (pytest.approx(both, rel=0.05), pytest.approx(first_alone, rel=0.05))


@pytest.mark.parametrize(
    ("objective", "labels", "message"),
    [
        ("listwise-kl(teacher_scores=ce.scores)", (), "or --scores ce=STORE"),
        ("listwise-kl", ("", "ce"), r"learns nothing from the scores ce.*teacher_scores=ce.scores"),
        ("listwise-kl(teacher_scores=ce.scores)", ("ce",), "give --scores RUN without a label"),
        (OBJECTIVE, ("", "ce", "ce"), "two sources of scores-ce"),
        ("confidence-weighted-kl", ("", "ce"), "names none: write teachers=teacher_scores"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    objective: str,
    labels: tuple[str, ...],
    message: str,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """A store that nothing learns from, or a traceback in the first step."""
    sources = [LabelledScores(scores, label=label) if label else scores for label in labels]
    with pytest.raises(ConfigError, match=message):
        train_student(
            collection,
            tiny_model,
            tmp_path / "s",
            sources=sources,
            settings=replace(TINY, objective=objective),
        )


def test_one_label_is_one_teacher(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Stored and live scores of one name, of which the last one wins."""
    sources = [
        scores,
        LabelledScores(scores, label="ce"),
        TeacherSource("bi-encoder:any", label="ce"),
    ]
    with pytest.raises(ConfigError, match="two sources of ce.scores"):
        train_student(collection, tiny_model, tmp_path / "s", sources=sources, settings=TINY)


def test_labelled_stores_are_given_on_the_command_line(
    folder: Path,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A store that manifest, card or the command of a reproduction lose; a path with a `=`."""
    stores = tmp_path / "first", tmp_path / "lr=1"
    for store, run in zip(stores, (scores, other(scores)), strict=True):
        score_candidates(collection, scores, RunTeacher(run), store)
    words = f"--data beir:{folder} --student {tiny_model} --out {tmp_path / 's'} --max-steps 2 "
    words += f"--batch-size 4 --doc-tokens 32 --query-tokens 16 --scores {stores[0]} "
    words += f"--objective {OBJECTIVE.replace(' ', '')} --scores ce="
    assert train.main((words + str(tmp_path / "gone")).split()) == 2
    assert "gone does not exist" in capsys.readouterr().err
    assert train.main((words + str(stores[1])).split()) == 0
    manifest = Manifest.read(tmp_path / "s", kind="student")
    assert len({manifest.inputs[name] for name in ("scores", "scores-ce")}) == 2
    command = command_of(asdict(manifest)) or ""
    assert f"--scores {stores[0]}" in command
    assert f"--scores ce={stores[1]}" in command
    named = {(role, name) for _, role, name in inputs_named("train", manifest.config)}
    assert {("scores", str(stores[0])), ("scores-ce", str(stores[1]))} <= named
    card = (tmp_path / "s" / "README.md").read_text()
    assert "| scores | `ce=lr=1` |" in card
