"""A base model beside the teacher, live or stored, in a training."""

from dataclasses import replace
from pathlib import Path

import pytest

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.stages.training import train_student
from retrodistill.stages.training.sources.labelled_scores import LabelledScores
from retrodistill.stages.training.sources.teacher import TeacherSource

TINY = TrainSettings(
    candidates_per_query=4,
    batch_size=4,
    max_steps=2,
    query_tokens=16,
    doc_tokens=32,
    dropout=0.0,
    precision="float32",
    teacher_precision="float32",
)
DELTA = "delta-kl(base_scores=base.scores,start_scores=start.scores)"


def first_loss(
    objective: str, sources: list[object], collection: Collection, student: Path, out: Path
) -> float:
    """Return the objective's value at the first step."""
    settings = replace(TINY, objective=objective)
    folder = train_student(collection, student, out, sources=sources, settings=settings)
    row = dict(Manifest.read(folder).details["losses"][0])
    row.pop("step")
    return sum(row.values())


def test_gcse_at_its_start_has_no_hard_negatives(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Plain InfoNCE, because the base model is a constant or the student itself, trained."""
    base = TeacherSource(f"bi-encoder:{tiny_model}", label="base")
    objective = "gcse(teacher_batch_scores=base.batch_scores)"
    decayed = first_loss(objective, [scores, base], collection, tiny_model, tmp_path / "g")
    plain = first_loss("contrastive", [scores], collection, tiny_model, tmp_path / "c")
    assert decayed < plain - 0.1


def test_a_delta_of_nothing_keeps_the_student_where_it_starts(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """The teacher's own scores as the target: listwise-kl under another name."""

    def delta(base: Run, out: str) -> float:
        sources: list[object] = [
            scores,
            LabelledScores(base, label="base"),
            TeacherSource(f"bi-encoder:{tiny_model}", label="start"),
        ]
        return first_loss(DELTA, sources, collection, tiny_model, tmp_path / out)

    untrained = Run.from_dict(
        {
            query: {doc: score / 2 for doc, score in docs.items()}
            for query, docs in scores.to_dict().items()
        }
    )
    assert delta(scores, "same") == pytest.approx(0.0, abs=1e-5)
    learned = delta(untrained, "learned")
    assert learned > 0.01
    plain = first_loss("listwise-kl", [scores], collection, tiny_model, tmp_path / "plain")
    assert learned != pytest.approx(plain, rel=0.02)


def test_a_base_without_a_label_is_refused(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A signal that nothing gives, found in the first step."""
    with pytest.raises(ConfigError, match=r"needs base_scores, which only a label gives: write"):
        first_loss("delta-kl", [scores], collection, tiny_model, tmp_path / "s")
