"""Vectors of sentences in training: pooled from the whole text, against the teacher's of each."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.corpus import NOUNS
from fakes.encoders import save_tiny_sparse
from fakes.models import save_tiny_model

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.models.students.batches import TrainingText
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.spans import number_spans, sentences, text_and_span_vectors
from retrodistill.models.students.towers import side_batches
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import build_batches, build_task, start_student
from retrodistill.stages.training.material import gather_material
from retrodistill.stages.training.sources.vectors import VectorSource

CPU = torch.device("cpu")
TINY = TrainSettings(
    objective="span-contrastive",
    batch_size=6,
    max_steps=4,
    query_tokens=16,
    doc_tokens=24,
    batch_tokens=64,
    dropout=0.0,
    precision="float32",
)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Documents of one to five sentences of three to six words."""
    folder, rng = tmp_path_factory.mktemp("long") / "data", random.Random(2)
    folder.mkdir()
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for number in range(40):
            parts = [rng.sample(NOUNS, rng.randint(3, 6)) for _ in range(1 + number % 5)]
            text = " ".join(" ".join(words).capitalize() + "." for words in parts)
            row = {"_id": f"d{number}", "title": "", "text": text}
            corpus.write(json.dumps(row) + "\n")
    (folder / "queries.jsonl").write_text('{"_id": "q0", "text": "heart"}\n', encoding="utf-8")
    return load_collection(f"beir:{folder}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("spans")
    prompts = {"query": "find: ", "document": "text: "}
    return {
        "student": save_tiny_model(root / "student", layers=2),
        "prompted": save_tiny_model(root / "prompted", layers=2, prompts=prompts),
        "teacher": save_tiny_model(root / "teacher", dimension=48, seed=1),
        "sparse": save_tiny_sparse(root / "sparse"),
    }


def seen_by(
    model: Path, teacher: Path, long: Collection, settings: TrainSettings, rows: list[int]
) -> tuple[Signals, Any, dict[str, Any]]:
    """Return the signals of one batch of documents, its task after backward, and the batch."""
    terms, seen = parse_objective(settings.objective), []
    material = gather_material(long, "train", None, terms, settings)
    source = VectorSource(DenseEncoder(teacher, precision="float32"))
    source.prepare(material, terms, settings)
    student = start_student(str(model), settings, long, CPU)
    task = build_task(student, terms, settings, torch.float32, [source])

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    items = [TrainingText("document", row) for row in rows] or [TrainingText("query", 0)]
    batch = build_batches(task.model, settings, long, [source])(items)
    task(**batch)["loss"].backward()
    return seen[-1], task, batch


def test_sentences_of_a_text() -> None:
    """A cut inside an abbreviation; blanks and bullets for sentences; one sentence for a part."""

    def parts(text: str) -> list[str]:
        return [text[each.start : each.end] for each in sentences(text)]

    assert parts("Sleep helps (e.g. at night). Stress  does not!  ") == [
        "Sleep helps (e.g. at night).",
        "Stress  does not!",
    ]
    assert parts("A title\n\n***\n\nAnd a text. ...") == ["A title", "And a text. ..."]
    assert parts("One sentence alone.") == parts("") == parts("...") == []


@pytest.mark.parametrize("student", ["student", "prompted"])
def test_spans_are_the_sentences_that_were_read_whole(
    student: str, models: dict[str, Path], long: Collection
) -> None:
    """Tokens of the prompt, of the next sentence or of another text; a teacher's other sentence.

    A span is pooled from what the whole text gives, not from the sentence read alone.
    """
    rows = [4, 9, 0, 3, 7, 14]
    signals, task, batch = seen_by(models[student], models["teacher"], long, TINY, rows)
    model, prompt = task.model.eval(), "text: " if student == "prompted" else ""
    teacher = DenseEncoder(models["teacher"], precision="float32")
    tokenizer, expected, vectors, cut = model.tokenizer, [], [], 0
    order = [int(each) for chunk in batch["docs"] for each in chunk["positions"]]
    for row in (sorted(rows)[position] for position in order):
        text = long.docs[row].full_text
        features = model.preprocess([prompt + text], max_length=24)
        with torch.no_grad():
            tokens = model[0](features)["token_embeddings"][0]
        start = len(tokenizer(prompt)["input_ids"]) - 1
        for each in sentences(text):
            part = text[each.start : each.end]
            stop = start + len(tokenizer(part)["input_ids"]) - 2
            if stop > 23:
                cut += 1
                break
            span = tokens[start:stop].mean(0)
            vectors.append(torch.nn.functional.normalize(span, dim=0))
            expected.append(part)
            start = stop
    assert cut  # a sentence that is cut is none
    matched = task.projection(torch.stack(vectors))
    torch.testing.assert_close(signals["matched_span_vectors"], matched, atol=1e-5, rtol=1e-4)
    alone = torch.from_numpy(teacher.encode_docs(expected))
    torch.testing.assert_close(signals["teacher_span_vectors"], alone, atol=1e-5, rtol=1e-4)
    own = torch.from_numpy(DenseEncoder(model, precision="float32").encode_docs(expected))
    assert not torch.allclose(signals["matched_span_vectors"], task.projection(own), atol=1e-3)


def test_vectors_of_texts_stay_what_they_are(models: dict[str, Path], long: Collection) -> None:
    """Documents in another order, or pooled without their special tokens, beside their parts."""
    settings = replace(TINY, objective="span-contrastive + embed-distill")
    rows = [4, 9, 0, 3, 7, 14]
    signals, task, _ = seen_by(models["student"], models["teacher"], long, settings, rows)
    encoder = DenseEncoder(task.model, max_tokens=24, precision="float32")
    texts = long.docs.full_texts(np.array(sorted(rows)))
    alone = torch.from_numpy(encoder.encode_docs(texts))
    torch.testing.assert_close(signals["doc_vectors"], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "changes", [{"batch_tokens": 4096}, {"cache_gradients": True}, {"dims": (16,)}]
)
def test_chunks_do_not_change_the_gradient(
    changes: dict[str, Any], models: dict[str, Path], long: Collection
) -> None:
    """Spans numbered from 0 in each chunk; activations that are recomputed for texts alone."""
    rows, gradients = [4, 9, 0, 3, 7, 14], []
    for settings in (TINY, replace(TINY, **changes)):
        torch.manual_seed(0)
        _, task, batch = seen_by(models["student"], models["teacher"], long, settings, rows)
        gradients.append({n: p.grad for n, p in task.named_parameters() if p.grad is not None})
        assert (len(batch["docs"]) == 1) == (settings.batch_tokens > 1000)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        equal = torch.allclose(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)
        assert equal or "dims" in changes
        assert gradient.isfinite().all()


def test_a_batch_without_parts_costs_nothing(models: dict[str, Path], long: Collection) -> None:
    """A training that stops at documents of one sentence, or at a batch of queries alone.

    With a teacher of the student's dimension no projection is in the way of a missing gradient.
    """
    signals, task, _ = seen_by(models["student"], models["teacher"], long, TINY, [0, 5, 10])
    assert signals["matched_span_vectors"].shape == (0, 48)
    assert task.losses["span-contrastive"] == 0.0
    for rows in ([0, 5, 10], []):
        _, task, _ = seen_by(models["student"], models["prompted"], long, TINY, rows)
        assert task.projection is None
        assert task.losses["span-contrastive"] == 0.0


def test_a_student_learns_to_tell_parts_apart(
    models: dict[str, Path], long: Collection, tmp_path: Path
) -> None:
    """A loss that falls by the projection alone, which is not what is served."""
    out = train_student(
        long,
        models["student"],
        tmp_path / "s",
        sources=[VectorSource(DenseEncoder(models["teacher"], precision="float32"))],
        settings=replace(TINY, max_steps=60, learning_rate=3e-3, batch_size=8),
    )
    losses = [each["span-contrastive"] for each in Manifest.read(out).details["losses"]]
    assert losses[-1] < 0.7 * losses[0]
    assert DenseEncoder(out).dimension == 48


def test_a_large_batch_without_gradients_has_parts_too(
    models: dict[str, Path], long: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measurement that stops at 512 tokens, where linear layers run as one operation."""
    faster = "retrodistill.models.inference.fused.one_operation_is_faster"
    monkeypatch.setattr(faster, lambda dtype: True)
    student = start_student(str(models["student"]), TINY, long, CPU)
    texts = [doc.full_text for doc in long.docs][:39]
    batches = side_batches(student, texts, "document", max_tokens=64, batch_tokens=9999)
    (chunk,) = [
        {"features": features, "positions": torch.from_numpy(rows)} for rows, features in batches
    ]
    spans = number_spans(student.tokenizer, [chunk], texts, prompt="", max_tokens=64)
    with torch.no_grad():
        vectors = text_and_span_vectors([*student], chunk["features"], torch.float32)
    assert chunk["features"]["input_ids"].numel() >= 512
    assert len(vectors) == len(texts) + len(spans)


def test_what_has_no_parts_is_refused(
    models: dict[str, Path], long: Collection, tmp_path: Path
) -> None:
    """A part that is a mean where its text is one token's vector; documents that nobody reads."""
    cases = [
        ("student", {"pooling": "cls"}, "set --pooling mean"),
        ("student", {"freeze": "document"}, "--freeze document keeps"),
        ("sparse", {"student_kind": "sparse"}, "pool the mean"),
    ]
    for name, changes, message in cases:
        with pytest.raises(ConfigError, match=message):
            train_student(
                long,
                models[name],
                tmp_path / "s",
                sources=[VectorSource(DenseEncoder(models["teacher"], precision="float32"))],
                settings=replace(TINY, **changes),
            )
