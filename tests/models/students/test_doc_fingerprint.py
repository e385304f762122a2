"""The hash of a model's document side: whose vectors of documents are whose."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router

from retrodistill.data.datasets import load_collection
from retrodistill.data.store import vectors
from retrodistill.data.store.vectors import cached, doc_vectors
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.towers import side_modules, two_towers
from retrodistill.models.students.transforms import prompted, with_projection
from retrodistill.models.students.truncated import Truncated

PROMPTS = {"query": "search query: ", "document": "the document: "}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("start"), layers=2, prompts=PROMPTS)


@pytest.fixture(scope="module")
def model(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def student(model: SentenceTransformer) -> SentenceTransformer:
    """A Router whose query tower has moved, and whose document route is a copy of the model."""
    moved = two_towers(model, model)
    with torch.no_grad():
        for weights in side_modules(moved, "query")[0].parameters():
            weights += 0.01
    return moved


def fingerprint(model: SentenceTransformer | Path, **settings: object) -> str:
    return DenseEncoder(model, **settings).doc_fingerprint  # type: ignore[arg-type]


def test_a_router_and_the_model_that_it_copies_are_equal(
    folder: Path, model: SentenceTransformer, student: SentenceTransformer, tmp_path: Path
) -> None:
    """A router that differs from its document model, or from itself reloaded: all is embedded."""
    before = fingerprint(folder)
    assert fingerprint(model) == before
    encoder = DenseEncoder(student)
    assert encoder.doc_fingerprint == before
    assert encoder.fingerprint != DenseEncoder(model).fingerprint
    encoder.save(tmp_path / "student")
    assert fingerprint(tmp_path / "student") == before
    again = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    again.save(str(tmp_path / "again"), create_model_card=False)
    assert fingerprint(tmp_path / "again") == before


def test_the_order_of_the_routes_does_not_count(
    folder: Path, student: SentenceTransformer, tmp_path: Path
) -> None:
    """A router may list its document route first, or name it by a mapping."""
    routes = {side: list(side_modules(student, side)) for side in ("document", "query")}
    mapped = {("document", None): "b", ("query", None): "a"}
    for name, router in {
        "turned": Router(routes, default_route="document"),  # type: ignore[arg-type]
        "mapped": Router({"a": routes["query"], "b": routes["document"]}, route_mappings=mapped),  # type: ignore[arg-type]
    }.items():
        turned = SentenceTransformer(modules=[router], prompts=PROMPTS, device="cpu")
        assert fingerprint(turned) == fingerprint(folder)
        turned.save(str(tmp_path / name), create_model_card=False)
        assert fingerprint(tmp_path / name) == fingerprint(folder)


def test_use_does_not_change_it(folder: Path, student: SentenceTransformer, tmp_path: Path) -> None:
    """The length of the last call stays in a tokenizer, and in the files that the library saves."""
    before = fingerprint(folder)
    used = copy.deepcopy(student)
    DenseEncoder(used).encode_docs(["a test " * 100, "b"])
    used.encode(["c " * 300, "d"])
    assert fingerprint(used) == before
    used.save(str(tmp_path), create_model_card=False)
    assert fingerprint(tmp_path) == before


def weight(model: SentenceTransformer) -> None:
    with torch.no_grad():
        next(side_modules(model, "document")[0].parameters())[3, 3] += 1e-3


def word(model: SentenceTransformer) -> None:
    side_modules(model, "document")[0].tokenizer.add_tokens(["vitamins"])


def limit(model: SentenceTransformer) -> None:
    side_modules(model, "document")[0].max_seq_length = 7


def pooling(model: SentenceTransformer) -> None:
    side_modules(model, "document")[1].pooling_mode = "cls"


def prompt(model: SentenceTransformer) -> None:
    model.prompts["document"] = "another: "


def cut(model: SentenceTransformer) -> None:
    model.truncate_dim = 16


@pytest.mark.parametrize("change", [weight, word, limit, pooling, prompt, cut])
def test_what_shapes_a_document_changes_it(
    change: Callable[[SentenceTransformer], None],
    model: SentenceTransformer,
    student: SentenceTransformer,
) -> None:
    """Two document sides with one hash: old vectors are searched, and the results are noise."""
    for start in (model, student):
        changed = copy.deepcopy(start)
        change(changed)
        assert fingerprint(changed) != fingerprint(model)


def test_an_unnormalised_document_side_is_another(model: SentenceTransformer) -> None:
    """A missing module is no setting and has no weights, but moves every vector."""
    bare = SentenceTransformer(modules=list(model)[:2], prompts=PROMPTS, device="cpu")
    assert fingerprint(bare) != fingerprint(model)
    wider = with_projection(model, torch.eye(32))
    assert fingerprint(wider) != fingerprint(model)


def test_settings_change_it(folder: Path) -> None:
    """Documents cut at 16 tokens, or encoded in bfloat16, are other vectors."""
    encoder = DenseEncoder(folder, precision="float32")
    assert fingerprint(folder, max_tokens=16) != encoder.doc_fingerprint
    half = DenseEncoder(folder, precision="bfloat16")
    assert half.doc_fingerprint != encoder.doc_fingerprint
    assert half.doc_fingerprint == encoder.doc_fingerprint_in("bfloat16")
    assert fingerprint(folder, batch_tokens=9) == fingerprint(folder)
    short = Truncated(encoder, 16, normalised=True).doc_fingerprint
    assert short != encoder.doc_fingerprint
    assert short != Truncated(encoder, 8, normalised=True).doc_fingerprint


def test_queries_do_not_change_it(model: SentenceTransformer, folder: Path, tmp_path: Path) -> None:
    """A student of new queries must not embed its documents again."""
    assert fingerprint(prompted(model, query="q: ")) == fingerprint(model)
    short = save_tiny_model(tmp_path, layers=1, max_tokens=9, seed=4)
    other = SentenceTransformer(str(short), device="cpu")
    assert fingerprint(two_towers(other, model)) == fingerprint(folder)
    limited = copy.deepcopy(model)
    limited[0].query_length = 5
    assert fingerprint(limited) == fingerprint(model)


def test_a_router_student_encodes_no_document(
    folder: Path,
    student: SentenceTransformer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frozen document tower whose vectors are computed again for every student."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vectors, "PART", 20)
    docs = load_collection(f"beir:{save_small_collection(tmp_path / 'data', docs=60)}").docs
    expected = doc_vectors(DenseEncoder(folder), docs)
    DenseEncoder(student).save(tmp_path / "student")
    calls: list[int] = []
    encode = DenseEncoder.encode_docs
    monkeypatch.setattr(
        DenseEncoder,
        "encode_docs",
        lambda self, texts: calls.append(len(texts)) or encode(self, texts),
    )
    for start in (tmp_path / "student", student):
        encoder = DenseEncoder(start)
        assert cached(encoder, docs) == 60
        np.testing.assert_array_equal(doc_vectors(encoder, docs), expected)
    assert calls == []
    changed = copy.deepcopy(student)
    weight(changed)
    doc_vectors(DenseEncoder(changed), docs)
    assert calls == [20, 20, 20]
