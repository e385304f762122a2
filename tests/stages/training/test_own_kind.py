"""A kind of student, and a source of signals, that are defined outside the package."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from retrodistill import train
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.batches import BatchRows, SignalProvider
from retrodistill.models.students.kinds import CardText
from retrodistill.models.students.kinds.dense import KIND as DENSE
from retrodistill.models.students.kinds.dense import BiEncoderTask
from retrodistill.models.students.tasks import Chunks
from retrodistill.stages.training import train_student
from retrodistill.stages.training.sources import SignalSource, as_sources
from retrodistill.stages.training.sources.scores import ScoreSource

SHORT = TrainSettings(
    candidates_per_query=4, batch_size=4, max_steps=2, query_tokens=16, doc_tokens=32
)


class RoundedTask(BiEncoderTask):
    """Vectors of whole numbers in the loss, with the gradient of the numbers themselves."""

    def encode(self, chunks: Chunks, side: Any) -> torch.Tensor:
        vectors = super().encode(chunks, side)
        return vectors + ((8 * vectors).round() / 8 - vectors).detach()


def rounded_scorer(model: Any, queries: Sequence[str], **options: Any) -> Any:
    encoder = DENSE.encoder(model, **options)

    def rounded(vectors: np.ndarray) -> np.ndarray:
        return (8 * vectors).round() / 8

    vectors = rounded(encoder.encode_queries(queries))
    return lambda texts: vectors @ rounded(encoder.encode_docs(texts)).T


KIND = replace(
    DENSE,
    name="rounded",
    noun="rounded bi-encoder",
    about="It gives each text a vector of eighths.",
    task=RoundedTask,
    doc_scorer=rounded_scorer,
    card=CardText(
        library_class="SentenceTransformer",
        pipeline="sentence-similarity",
        tags=("rounded",),
        usage="model.encode({query}).round() @ model.encode({doc}).round()",
    ),
)


@pytest.fixture
def own_module(monkeypatch: pytest.MonkeyPatch) -> str:
    """This file as a module that can be imported by name, as a lab's package would be."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return Path(__file__).stem


def test_a_kind_of_ones_own_is_trained_measured_saved_and_described(
    own_module: str,
    folder: Path,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """A kind that training knows of, and measuring or the card does not."""
    scores.write(tmp_path / "scores", inputs={"collection": collection.fingerprint})
    out = tmp_path / "student"
    words = f"--data beir:{folder} --scores {tmp_path / 'scores'} --student {tiny_model}"
    words += f" --out {out} --student-kind {own_module}:KIND --dev-split test --eval-steps 1"
    words += " --batch-size 4 --max-steps 2 --candidates-per-query 4 --doc-tokens 32"
    assert train.main(words.split()) == 0
    development = Manifest.read(out, kind="student").details["development"]
    assert len(development["values"]) == 2
    card = (out / "README.md").read_text()
    assert "rounded bi-encoder" in card
    assert "- rounded\n" in card
    assert "It gives each text a vector of eighths." in card
    assert ".round()" in card
    vectors = SentenceTransformer(str(out), device="cpu").encode(["blood pressure"])
    assert np.isfinite(vectors).all()


def test_an_unknown_kind_is_refused_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or a whole collection read before a typing error is reported."""
    words = f"--data beir:{folder} --student M --out {tmp_path / 's'} --student-kind colber"
    assert train.main(words.split()) == 2
    assert "unknown kind of student 'colber'" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(STUDENT_KINDS))
def test_every_kind_is_whole(name: str) -> None:
    """A kind whose trained students nothing can use, or that is found under two names."""
    kind = STUDENT_KINDS[name]
    assert kind.name == name
    assert (kind.retriever is None) == (kind.doc_scorer is None)
    assert kind.settings <= set(TrainSettings.__dataclass_fields__)
    assert {"student_scores", "mask"} <= kind.task.gives
    table = [STUDENT_KINDS[listed] for listed in STUDENT_KINDS if listed != name]
    assert not any(set(kind.saved_as) & set(listed.saved_as) for listed in table)
    assert "{query}" in kind.card.usage
    assert "{doc}" in kind.card.usage


class Reversed(SignalSource):
    """A live teacher that prefers what the student likes least."""

    name = "reversed"
    about = "the student's scores, reversed"
    gives = frozenset({"teacher_scores"})
    live = True
    fingerprint = "reversed"

    def __init__(self) -> None:
        self.batches: list[BatchRows] = []

    def of(self, batch: BatchRows, student: Any) -> dict[str, torch.Tensor]:
        self.batches.append(batch)
        return {"teacher_scores": -student["student_scores"].detach()}


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_live_source_is_asked_in_the_forward_pass(
    kind: str, collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """A source that is asked for a batch before the student has read it, or is never asked."""
    teacher: SignalProvider = Reversed()
    settings = replace(SHORT, student_kind=kind, objective="ranknet")
    candidates = Run.from_dict({f"q{n}": {f"d{n}": 1.0, "d30": 0.5} for n in range(8)})
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[Candidates(candidates), teacher],
        settings=settings,
    )
    manifest = Manifest.read(out)
    assert manifest.inputs["reversed"] == "reversed"
    assert all(row["ranknet"] > 0 for row in manifest.details["losses"])
    assert len(teacher.batches) > SHORT.max_steps
    assert all(len(batch.examples) == len(batch.queries) for batch in teacher.batches)


class Candidates(ScoreSource):
    """A run that lists the candidates, and whose scores are not trained on."""

    gives = frozenset()


def test_what_is_no_source_is_refused(scores: Run) -> None:
    """A path in place of a run, or two runs of which the second is ignored."""
    with pytest.raises(ConfigError, match="a str is not a source of signals"):
        as_sources(["scores/ce"])
    with pytest.raises(ConfigError, match="two sources of scores"):
        as_sources([scores, scores])
    assert [source.name for source in as_sources([None, scores])] == ["scores"]
