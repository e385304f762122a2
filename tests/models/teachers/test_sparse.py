"""Sparse scores are the library's, though the logarithm is taken later than there."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.encoders import save_sparse, save_tiny_language_model, save_tiny_sparse
from fakes.models import WORDS, save_tiny_body
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import (
    SparseAutoEncoder,
    SparseStaticEmbedding,
    SpladePooling,
)

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students import sparse
from retrodistill.models.students.sparse import SparseTextEncoder
from retrodistill.models.teachers import sparse as teachers
from retrodistill.models.teachers.sparse import SparseTeacher


def save_two_ways(folder: Path) -> Path:
    """Write a model whose queries get the weights of a table, without a transformer."""
    path = str(save_tiny_language_model(folder / "body"))
    body = Transformer(path, transformer_task="fill-mask")
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(len(body.tokenizer), generator=generator)
    table = SparseStaticEmbedding(body.tokenizer, weights)
    return save_sparse([Router.for_query_document([table], [body, SpladePooling()])], folder)


def save_autoencoder(folder: Path) -> Path:
    """Write a bi-encoder whose vectors are spread over 128 dimensions, 9 of them kept."""
    body = Transformer(str(save_tiny_body(folder / "body", layers=1)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide = SparseAutoEncoder(32, 128, k=20, k_aux=16)
    return save_sparse([body, Pooling(32), wide], folder, kept=9)


MODELS = {
    "splade": lambda folder: save_tiny_sparse(folder, document_length=40, query_length=9),
    "prompts": lambda folder: save_tiny_sparse(folder, prompts={"query": "what is "}),
    "twice the logarithm": lambda folder: save_tiny_sparse(folder, activation="log1p_relu"),
    "sums": lambda folder: save_tiny_sparse(folder, pooling="sum"),
    "the best words": lambda folder: save_tiny_sparse(folder, kept=20),
    "bare": lambda folder: save_tiny_language_model(folder),
    "two ways": save_two_ways,
    "autoencoder": save_autoencoder,
}


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Pairs of 20 queries and 30 documents of very different lengths, in random order."""
    rng = random.Random(0)
    queries = [
        Doc(f"q{i}", "", " ".join(rng.choices(WORDS, k=rng.randint(1, 20)))) for i in range(20)
    ]
    docs = [
        Doc(f"d{i}", rng.choice(WORDS), ", ".join(rng.choices(WORDS, k=rng.randint(0, 60))))
        for i in range(30)
    ]
    docs[0] = Doc("d0", "", "")
    return Pairs.of(rng.choices(queries, k=300), rng.choices(docs, k=300))


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_sparse(tmp_path_factory.mktemp("splade"), document_length=40))


def library_scores(model: SparseEncoder, pairs: Pairs) -> np.ndarray:
    """Return the inner products that the library's documentation leads to."""
    texts = [[doc.full_text for doc in side] for side in (pairs.queries, pairs.docs)]
    queries = model.encode_query(texts[0], convert_to_sparse_tensor=False)
    docs = model.encode_document(texts[1], convert_to_sparse_tensor=False)
    return model.similarity(queries, docs).numpy()[pairs.query_rows, pairs.doc_rows]


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_library(name: str, tmp_path: Path, pairs: Pairs) -> None:
    """Padding, a prompt or a limit that is another than in training ranks nearly as well."""
    path = str(MODELS[name](tmp_path))
    expected = library_scores(SparseEncoder(path, device="cpu"), pairs)
    for batch_tokens in (100, 4096):
        teacher = SparseTeacher(path, ModelOptions(batch_tokens=batch_tokens, precision="float32"))
        assert isinstance(teacher, Teacher)
        assert (teacher.scale, teacher.unit) == ("dot", "document")
        values = teacher.score(pairs)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, atol=1e-4, rtol=1e-5)
    assert np.ptp(expected) > 0.1


def test_a_score_stands_alone(splade: str, pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that depends on its neighbours, so that a resume changes the table."""
    teacher = SparseTeacher(splade, ModelOptions(precision="float32"))
    scores = teacher.score(pairs)
    assert (teacher.score(pairs) == scores).all()
    for i in range(5):
        query, doc = pairs.queries[pairs.query_rows[i]], pairs.docs[pairs.doc_rows[i]]
        np.testing.assert_allclose(teacher.score(Pairs.of([query], [doc])), scores[i], atol=1e-5)
    monkeypatch.setattr(teachers, "PAIRS_AT_ONCE", 7)
    assert (teacher.score(pairs) == scores).all()


def test_each_text_is_encoded_once_in_small_batches(
    splade: str, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of tokens by a vocabulary of 250,000 words that takes all memory."""
    words = len(SparseEncoder(splade, device="cpu").tokenizer)
    monkeypatch.setattr(sparse, "NUMBERS_AT_ONCE", 90 * words)
    teacher = SparseTeacher(splade)
    batches: list[torch.Size] = []
    head = teacher._encoder.model[0].model.cls
    head.register_forward_hook(lambda module, inputs, logits: batches.append(logits.shape))
    teacher.score(pairs)
    assert sum(rows for rows, _, _ in batches) == len(pairs.queries) + len(pairs.docs)
    assert max(rows * tokens for rows, tokens, _ in batches) <= 90


def test_vectors_are_sparse(tmp_path: Path) -> None:
    """A million documents of 30,000 words each, zeros included, are 120 GB."""
    encoder = SparseTextEncoder(str(save_tiny_sparse(tmp_path, kept=5)), precision="float32")
    vectors = encoder.encode_docs(["the heart and the lung", "cell"])
    assert vectors.shape == (2, len(encoder.model.tokenizer))
    assert np.diff(vectors.indptr).tolist() == [5, 5]
    assert vectors.dtype == np.float32


def test_no_pairs(splade: str) -> None:
    assert SparseTeacher(splade).score(Pairs.of([], [])).shape == (0,)


def test_documents_are_cut_and_queries_are_not(splade: str, pairs: Pairs) -> None:
    """A limit meant for documents that cuts queries, or that lengthens what the model allows."""
    model = SparseEncoder(splade, device="cpu")
    model[0].document_length = 10
    values = SparseTeacher(splade, ModelOptions(max_tokens=10, precision="float32")).score(pairs)
    np.testing.assert_allclose(values, library_scores(model, pairs), atol=1e-4)
    whole = [SparseTeacher(splade, ModelOptions(max_tokens=n)).score(pairs) for n in (40, 256)]
    assert (whole[0] == whole[1]).all()
    assert np.abs(whole[0] - values).max() > 0.1


def test_the_fingerprint_is_that_of_the_scores(tmp_path: Path, splade: str) -> None:
    """Scores of another pooling taken for this one's, for the weights are the same."""
    variants = [{"pooling": "sum"}, {"kept": 3}, {"prompts": {"query": "q: "}}, {"seed": 1}]
    prints = {SparseTeacher(splade, ModelOptions(max_tokens=12, precision="float32")).fingerprint}
    for number, variant in enumerate(variants):
        path = save_tiny_sparse(tmp_path / str(number), document_length=40, **variant)
        prints.add(SparseTeacher(str(path), ModelOptions(precision="float32")).fingerprint)
    teacher = SparseTeacher(splade, ModelOptions(batch_tokens=9, precision="float32"))
    fingerprint = teacher.fingerprint
    assert len(prints | {fingerprint}) == len(variants) + 2
    teacher.score(Pairs.of([Doc("q", "", "heart")], [Doc("d", "", "lung")]))
    assert SparseTeacher(splade, ModelOptions(precision="float32")).fingerprint == fingerprint


def test_other_models_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    """A layer that the library draws at random scores without a word, each time differently."""
    for model in (str(save_tiny_body(tmp_path / "body")), str(tiny_model)):
        with pytest.raises(ConfigError, match="does not make sparse vectors"):
            SparseTeacher(model)


def test_models_that_are_not_there_are_explained() -> None:
    with pytest.raises(ConfigError, match="sparse needs a model"):
        SparseTeacher("")
    with pytest.raises(ConfigError, match="'nowhere/at-all' cannot be loaded"):
        SparseTeacher("nowhere/at-all")
