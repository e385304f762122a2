"""A student is trained on the tokens that its library will read when it is served."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from sentence_transformers import CrossEncoder

from retrodistill.base.config import TrainSettings
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.batches import TrainingExample
from retrodistill.stages.training.building import build_batches, load_student
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.examples import Schedule
from retrodistill.stages.training.sources.scores import ScoreSource

TEACHER = [ScoreSource(Run.from_dict({"q0": {"d0": 1.0}}))]
"""Gives the scores of the examples themselves."""


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def examples(collection: Collection, scores: Run) -> list[TrainingExample]:
    schedule = Schedule(gather(collection, "train", scores, pool=16), 6, per_query=4, seed=0)
    return [schedule[index] for index in range(6)]


def widest(chunks: list[dict[str, Any]]) -> int:
    return max(chunk["features"]["input_ids"].shape[1] for chunk in chunks)


def test_lengths_that_a_model_sets_for_one_side(
    collection: Collection, examples: list[TrainingExample], tmp_path: Path
) -> None:
    """Queries of 64 tokens in training, of 5 when the student is served."""
    student = load_student("bi-encoder", str(save_tiny_model(tmp_path)), CPU)
    settings = TrainSettings(query_tokens=64, doc_tokens=64)
    batch = build_batches(student, settings, collection, TEACHER)(examples)
    whole = widest(batch["queries"]), widest(batch["docs"])
    student[0].query_length, student[0].document_length = 5, 9
    batch = build_batches(student, settings, collection, TEACHER)(examples)
    assert (widest(batch["queries"]), widest(batch["docs"])) == (5, 9)
    assert whole[0] > 5
    assert whole[1] > 9


def test_the_default_prompt_of_a_cross_encoder(
    collection: Collection, examples: list[TrainingExample], tmp_path: Path
) -> None:
    """A cross-encoder that never saw its prompt in training, and gets it from its library."""
    model = CrossEncoder(
        str(save_tiny_cross_encoder(tmp_path / "plain")),
        device="cpu",
        prompts={"web": "search the web : "},
        default_prompt_name="web",
    )
    model.save(str(tmp_path / "prompted"))
    student = load_student("cross-encoder", str(tmp_path / "prompted"), CPU)
    settings = TrainSettings(student_kind="cross-encoder", doc_tokens=64)
    batch = build_batches(student, settings, collection, TEACHER)(examples)
    prompt = student.tokenizer("search the web :", add_special_tokens=False)["input_ids"]
    for chunk in batch["pairs"]:
        for row in chunk["features"]["input_ids"].tolist():
            assert row[1 : 1 + len(prompt)] == prompt
