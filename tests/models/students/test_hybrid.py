"""One body with three heads: each is a model of its own, and together they are one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_model
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sparse_encoder.modules import SpladePooling

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.heads import lexical_weights
from retrodistill.models.students.hybrid import HybridEncoder, HybridModel, load_hybrid
from retrodistill.models.students.sparse import SparseTextEncoder
from retrodistill.models.students.towers import side_batches, two_towers
from retrodistill.models.students.transforms import keep_layers, prompted

QUERIES = ["blood pressure in people", "milk"]
DOCS = [
    "the blood of the people: the people is high",
    "milk protein and sleep, in a longer text about diet, food and body weight",
    "exercise zzz",
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bi-encoder whose two sides have prompts."""
    prompts = {"query": "find: ", "document": "read: "}
    return save_tiny_model(tmp_path_factory.mktemp("start"), layers=2, prompts=prompts)


@pytest.fixture
def model(start: Path) -> HybridModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_hybrid(str(start), CPU)


@pytest.fixture
def saved(model: HybridModel, tmp_path: Path) -> Path:
    with torch.no_grad():  # as after a training: heads that are not those of a new student
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter) * parameter.requires_grad)
    model.save(str(tmp_path / "hybrid"))
    return tmp_path / "hybrid"


def alone(folder: Path) -> dict[str, np.ndarray]:
    """Return the scores of each head, by the library alone."""
    dense = SentenceTransformer(str(folder), device="cpu")
    scores = {"dense": dense.encode_query(QUERIES) @ dense.encode_document(DOCS).T}
    sparse = SparseEncoder(str(folder / "sparse"), device="cpu")
    plain = {"convert_to_sparse_tensor": False}
    products = sparse.encode_query(QUERIES, **plain) @ sparse.encode_document(DOCS, **plain).T
    multi = MultiVectorEncoder(str(folder / "multi-vector"), device="cpu")
    found = multi.similarity(multi.encode_query(QUERIES), multi.encode_document(DOCS))
    return scores | {"sparse": products.numpy(), "multi-vector": found.numpy()}


def test_each_saved_head_is_a_model_of_the_library_and_their_sum_is_ours(saved: Path) -> None:
    """A head that only we can load, or that scores differently there; a sum that is one head."""
    scores = alone(saved)
    total = scores["dense"] + 0.3 * scores["sparse"] + scores["multi-vector"]
    found = HybridEncoder(str(saved), precision="float32").scorer(QUERIES)(DOCS)
    np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-5)
    for each in scores.values():
        assert each.std() > 0.01
        assert not np.allclose(found, each, atol=0.05)


def test_a_hybrid_student_starts_again_from_its_folder(saved: Path, tmp_path: Path) -> None:
    """New heads in place of trained ones: a second training that begins at nothing."""
    again = load_hybrid(str(saved), CPU)
    again.save(str(tmp_path / "again"))
    for name, scores in alone(saved).items():
        np.testing.assert_allclose(alone(tmp_path / "again")[name], scores, rtol=1e-5, atol=1e-6)


def features_of(model: HybridModel, texts: list[str]) -> dict[str, Any]:
    batches = side_batches(model, texts, "document", max_tokens=64, batch_tokens=4096)
    ((rows, features),) = batches
    order = torch.from_numpy(np.argsort(rows))
    return {
        name: value[order] if torch.is_tensor(value) else value for name, value in features.items()
    }


def test_weights_of_words_are_the_largest_of_a_word_s_places() -> None:
    """A word that counts twice because it stands twice; a weight from padding; a mean."""
    hidden = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]])
    ids, counting = torch.tensor([[2, 2, 0]]), torch.tensor([[True, True, False]])
    weight = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.5, 1.0]])
    bias, kept = torch.tensor([0.0, 0.0, 0.25]), torch.ones(3)
    weights = lexical_weights(hidden, ids, counting, weight, bias, kept)
    # word 2: max(0.5 + 0.25, 2 + 0.25) = 2.25, and log(1 + 2.25)
    assert weights.tolist() == [[0.0, 0.0, pytest.approx(np.log(3.25))]]


def test_the_sparse_head_has_the_gradients_of_the_library(model: HybridModel) -> None:
    """A fast way to weights of words that trains another model than the one that is saved."""
    library = model.sparse_encoder().train(False)
    features = features_of(model, [*DOCS, "the the the the milk"])
    hidden = library[0](dict(features))["token_embeddings"].detach().requires_grad_()
    given = {**features, "token_embeddings": hidden}
    decoder = model.tails["sparse"][0].linear
    factor = torch.randn(4, len(model.tokenizer))
    gradients = []
    for weights in (
        model.other_heads(given, "document")[0],
        library[3](library.train()[2](library[1](dict(given))))["sentence_embedding"],
    ):
        wanted = [hidden, decoder.weight, decoder.bias]
        gradients.append((weights, *torch.autograd.grad((weights * factor).sum(), wanted)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        assert theirs.abs().max() > 0


def test_the_sparse_head_alone_is_read_the_same_fast_way(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of other weights than the library's, or an hour of numbers that nobody needs."""
    library = SparseEncoder(str(saved / "sparse"), device="cpu")
    expected = library.encode_document(DOCS, convert_to_sparse_tensor=False).numpy()
    ours = SparseTextEncoder(str(saved / "sparse"), precision="float32")
    monkeypatch.setattr(SpladePooling, "forward", None)
    np.testing.assert_allclose(ours.encode_docs(DOCS).toarray(), expected, rtol=1e-4, atol=1e-6)


def test_a_text_has_weights_of_its_own_words_alone(saved: Path) -> None:
    """A sparse head that is pooled as a dense one, or [CLS] as a word that all texts share."""
    head = SparseEncoder(str(saved / "sparse"), device="cpu")
    weights = head.encode_document(DOCS, convert_to_sparse_tensor=False)
    for text, row in zip(DOCS, weights, strict=True):
        words = set(head.tokenizer(f"read: {text}")["input_ids"])
        assert set(row.nonzero().flatten().tolist()) <= words - set(head.tokenizer.all_special_ids)
        assert (row > 0).sum() >= 3


def test_neither_padding_nor_special_tokens_have_a_vector(model: HybridModel) -> None:
    """A best match with [SEP], which every text has, or with padding, which only batches have."""
    texts = ["milk", DOCS[1]]
    features = features_of(model, texts)
    outputs = model.dense[0](dict(features))
    tokens = model.heads(outputs, "document")[2]
    special = torch.tensor(model.tokenizer.all_special_ids)
    assert torch.equal(tokens.any(-1), ~torch.isin(features["input_ids"], special))
    single = model.dense[0](features_of(model, texts[:1]))
    for together, apart in zip(
        model.heads(outputs, "document"), model.heads(single, "document"), strict=True
    ):
        torch.testing.assert_close(together[0][: apart.shape[1]], apart[0], rtol=1e-4, atol=1e-5)


def test_what_changes_the_body_changes_every_head(model: HybridModel, tmp_path: Path) -> None:
    """Layers or prompts of the dense head alone, beside heads of the old body."""
    small = prompted(keep_layers(model, [1]), query="", document="look: ")
    small.save(str(tmp_path / "small"))
    for folder in ("", "sparse", "multi-vector"):
        kind = {"sparse": SparseEncoder, "multi-vector": MultiVectorEncoder}.get(
            folder, SentenceTransformer
        )
        head = kind(str(tmp_path / "small" / folder), device="cpu")
        assert len(head[0].model.encoder.layer) == 1
        assert head.prompts["document"] == "look: "
    assert len(model.dense[0].model.encoder.layer) == 2
    assert model.prompts["document"] == "read: "


def test_a_head_of_another_body_is_refused(saved: Path, start: Path, tmp_path: Path) -> None:
    """A student whose heads were copied together: none of its scores was ever trained."""
    mixed = tmp_path / "mixed"
    shutil.copytree(start, mixed)
    shutil.copytree(saved / "sparse", mixed / "sparse")
    with pytest.raises(ConfigError, match="the head of another body"):
        load_hybrid(str(mixed), CPU)


def test_what_is_no_hybrid_student_is_refused(start: Path, tmp_path: Path) -> None:
    """A search with random heads, or heads of two bodies."""
    with pytest.raises(ConfigError, match="is not a hybrid student"):
        HybridEncoder(str(start))
    dense = SentenceTransformer(str(start), device="cpu")
    two_towers(dense, dense).save(str(tmp_path / "towers"))
    with pytest.raises(ConfigError, match="has two towers"):
        load_hybrid(str(tmp_path / "towers"), CPU)
