"""Queries that the teacher masters and the student ranks low; a student held to the one before."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_model

from retrodistill import train as verb
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import DataError
from retrodistill.base.manifest import Manifest, digest_files
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.objectives.objective import parse_objective
from retrodistill.stages.training.hard_queries import hard_queries
from retrodistill.stages.training.material import gather_material


def teacher_scores(collection: Collection) -> Run:
    """Return scores of 30 documents a training query; of odd queries the label is the best."""
    docs = collection.docs.ids()
    rows: dict[str, dict[str, float]] = {}
    for number, query in enumerate(collection.query_ids("train")):
        (label,) = collection.relevant("train")[query]
        others = [doc for doc in docs if doc != label][:29]
        rows[query] = {doc: -float(place) for place, doc in enumerate(others)}
        rows[query][label] = 1.0 if number % 2 else -5.5
    return Run.from_dict(rows)


def test_only_what_the_teacher_knows_and_the_student_does_not(
    collection: Collection, tmp_path: Path
) -> None:
    """Queries that the teacher gets wrong, that the student has learned, or that it never will."""
    model = DenseEncoder(save_tiny_model(tmp_path, layers=1), precision="float32").model
    scores = teacher_scores(collection)
    settings = TrainSettings(
        objective="listwise-kl", student_ranks=(2, 9), pool=40, doc_tokens=128, precision="float32"
    )
    material = gather_material(
        collection, "train", scores, parse_objective("listwise-kl"), settings
    )
    before = digest_files(tmp_path)
    hard = hard_queries(material, model, settings)
    assert digest_files(tmp_path) == before
    encoder = DenseEncoder(model, precision="float32", max_tokens=128)
    expected = []
    for number, query in enumerate(collection.query_ids("train")):
        listed = [*scores.to_dict()[query]]
        (label,) = collection.relevant("train")[query]
        vectors = encoder.encode_docs(collection.docs.full_texts(collection.docs.rows(listed)))
        own = (
            vectors
            @ encoder.encode_queries(
                collection.queries.full_texts(collection.queries.rows([query]))
            )[0]
        )
        rank = 1 + int((own > own[listed.index(label)]).sum())
        if number % 2 and 2 <= rank <= 9:
            expected.append(query)
    assert 0 < len(expected) < 12
    assert [*collection.queries.ids(hard.queries)] == expected
    assert hard.lists is not None
    assert [query.query for query in hard.lists] == hard.queries.tolist()
    whole = {query.query: query for query in material.lists or ()}
    for query in hard.lists:
        assert np.array_equal(query.pool, whole[query.query].pool)
        assert np.array_equal(query.pool_scores, whole[query.query].pool_scores)
        assert query.relevant == whole[query.query].relevant
    with pytest.raises(DataError, match="nothing is left to learn"):
        hard_queries(material, model, dataclasses.replace(settings, student_ranks=(31, 40)))


def test_a_student_is_held_to_the_one_before(tmp_path: Path) -> None:
    """A pull toward the student itself, which is 0 at every step: no retention at all."""
    data = save_small_collection(tmp_path / "data")
    model = save_tiny_model(tmp_path / "m", layers=1)
    term = "listwise-kl(teacher_scores=previous.scores,student_temperature=0.2,"
    words = f"--data beir:{data} --student {model} --max-steps 4 --batch-size 4 --doc-tokens 32 "
    words += f"--learning-rate 0.01 --teacher previous=bi-encoder:{model} --precision float32 "
    words += f"--warmup 0 --dropout 0 --scores {tmp_path / 'scores'}"
    teacher_scores(load_collection(f"beir:{data}")).write(tmp_path / "scores")
    objective = f"0.1*contrastive + 16*{term}teacher_temperature=0.2)"
    before = digest_files(model, "*.safetensors")
    command = [*words.split(), "--objective", objective, "--out", str(tmp_path / "s")]
    assert verb.main(command) == 0
    rows = Manifest.read(tmp_path / "s").details["losses"]
    assert rows[0]["listwise-kl[previous]"] == pytest.approx(0.0, abs=1e-4)
    assert rows[-1]["listwise-kl[previous]"] > 1e-3
    assert digest_files(model, "*.safetensors") == before
