"""Layers that are kept give a smaller model that is loaded as any other."""

from pathlib import Path

import numpy as np
import pytest
from fakes.models import save_tokenizer
from sentence_transformers import SentenceTransformer
from transformers import DistilBertConfig, DistilBertModel, ModernBertConfig, ModernBertModel

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.transforms import keep_layers, parse_layers

TEXTS = ["vitamin and asthma", "print a list of files", ""]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_model), device="cpu")


def distilbert(folder: Path) -> SentenceTransformer:
    size = len(save_tokenizer(folder))
    DistilBertModel(
        DistilBertConfig(vocab_size=size, dim=16, n_layers=4, n_heads=2, hidden_dim=32)
    ).save_pretrained(folder)
    return SentenceTransformer(str(folder), device="cpu")


def modernbert(folder: Path) -> SentenceTransformer:
    size = len(save_tokenizer(folder))
    ModernBertModel(
        ModernBertConfig(
            vocab_size=size,
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=32,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            cls_token_id=2,
            sep_token_id=3,
            global_attn_every_n_layers=2,
        )
    ).save_pretrained(folder)
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("text", "layers"), [("0,2,5", (0, 2, 5)), ("3", (3,)), (" 1, 2 ", (1, 2))]
)
def test_parse_layers(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "0,,2", "0-2", "a", "0.5"])
def test_parse_layers_refuses_what_is_no_number(text: str) -> None:
    with pytest.raises(ConfigError, match="0,2,5"):
        parse_layers(text)


@pytest.mark.parametrize("layers", [(0,), (5,), (0, 2, 5), tuple(range(6))])
def test_cut_model_equals_its_reloaded_self(
    model: SentenceTransformer, layers: tuple[int, ...], tmp_path: Path
) -> None:
    """A config that still has 6 layers reloads with random weights in the missing ones."""
    small = keep_layers(model, layers)
    small.save(str(tmp_path), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert reloaded.transformers_model.config.num_hidden_layers == len(layers)
    np.testing.assert_array_equal(small.encode(TEXTS), reloaded.encode(TEXTS))


def test_the_right_layers_are_kept(model: SentenceTransformer) -> None:
    """Keeping the first n whatever was asked for trains well, and is another experiment."""
    small = keep_layers(model, (1, 4))
    layers_left = small.transformers_model.encoder.layer
    for layer, original in zip(layers_left, (1, 4), strict=True):
        expected = model.transformers_model.encoder.layer[original].state_dict()
        assert all((layer.state_dict()[name] == expected[name]).all() for name in expected)


def test_all_layers_change_nothing(model: SentenceTransformer) -> None:
    np.testing.assert_array_equal(keep_layers(model, range(6)).encode(TEXTS), model.encode(TEXTS))


def test_the_original_is_left_alone(model: SentenceTransformer) -> None:
    """Shared weights would let training of the student change the model that it came from."""
    before = model.encode(TEXTS)
    small = keep_layers(model, (0, 3))
    for weights in small.parameters():
        weights.data.zero_()
    assert model.transformers_model.config.num_hidden_layers == 6
    np.testing.assert_array_equal(model.encode(TEXTS), before)


@pytest.mark.parametrize("layers", [(), (6,), (-1, 2), (2, 2), (3, 1)])
def test_bad_layers_are_refused(model: SentenceTransformer, layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="6 layers, 0 to 5"):
        keep_layers(model, layers)


@pytest.mark.parametrize("make", [distilbert, modernbert])
def test_other_architectures(make, tmp_path: Path) -> None:
    """Each names its layers and their number differently."""
    model = make(tmp_path / "model")
    small = keep_layers(model, (0, 3))
    small.save(str(tmp_path / "small"), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    np.testing.assert_allclose(small.encode(TEXTS), reloaded.encode(TEXTS), atol=1e-6)


def test_a_special_first_layer_must_stay(tmp_path: Path) -> None:
    """ModernBERT's first layer has no norm: another in its place would be loaded without one."""
    with pytest.raises(ConfigError, match="Keep layer 0"):
        keep_layers(modernbert(tmp_path), (1, 3))
