"""Adapters train beside frozen weights, and are folded into them without a trace."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_cross_encoder
from sentence_transformers import CrossEncoder, SentenceTransformer

from retrodistill.base.errors import ConfigError, MissingExtra
from retrodistill.models.students.adapters import add_lora, merge_lora
from retrodistill.models.students.towers import two_towers

pytest.importorskip("peft")

TEXTS = ["vitamin and asthma", "print a list of files", ""]
LAYERS, D = 6, 32


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_model), device="cpu")


def train(model: SentenceTransformer, steps: int = 3) -> None:
    """Take some steps towards vectors of ones."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=1e-2)
    features = model.preprocess(TEXTS, task="query")
    for _ in range(steps):
        optimiser.zero_grad()
        vectors = model(dict(features), task="query")["sentence_embedding"]
        (vectors - 1).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize(
    ("targets", "maps"), [("auto", "qkvoio"), (("query", "value"), "qv"), (["output.dense"], "oo")]
)
def test_only_adapters_train(model: SentenceTransformer, targets, maps: str) -> None:
    """An embedding matrix that is left trainable is most of the model's weights."""
    adapted = add_lora(model, 4, targets=targets)
    trained = {n: p.numel() for n, p in adapted.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trained)
    # (inputs + outputs) * rank: D to D for attention, D to 2 D and 2 D to D for the neurons
    sizes = {
        "auto": 4 * 2 * D + 2 * 3 * D,
        ("query", "value"): 2 * 2 * D,
        "output.dense": 2 * D + 3 * D,
    }
    per_layer = sizes[targets if isinstance(targets, (str, tuple)) else targets[0]]
    assert sum(trained.values()) == LAYERS * 4 * per_layer
    assert len(trained) == 2 * LAYERS * len(maps)


def test_it_starts_as_the_model(model: SentenceTransformer) -> None:
    np.testing.assert_allclose(add_lora(model, 4).encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_training_leaves_the_weights_alone(model: SentenceTransformer) -> None:
    """A weight that drifts makes this full training with a learning rate meant for adapters."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    adapted = add_lora(model, 4, dropout=0.1)
    vectors = adapted.encode(TEXTS)
    train(adapted)
    assert np.abs(adapted.encode(TEXTS) - vectors).max() > 1e-3
    after = {
        name.replace(".base_layer", ""): weight
        for name, weight in adapted.state_dict().items()
        if "lora_" not in name
    }
    assert after.keys() == before.keys()
    for state in (after, model.state_dict()):
        assert all(torch.equal(state[name], before[name]) for name in before)


def test_merged_equals_unmerged(model: SentenceTransformer, tmp_path: Path) -> None:
    """What is saved unmerged is loaded as the untrained model, or not at all."""
    adapted = add_lora(model, 4, alpha=8)
    train(adapted)
    adapted.double()  # so that rounding does not hide what merging loses
    vectors = adapted.encode(TEXTS)
    merged = merge_lora(adapted)
    np.testing.assert_allclose(merged.encode(TEXTS), vectors, atol=1e-6)
    np.testing.assert_array_equal(adapted.encode(TEXTS), vectors)
    assert merged.state_dict().keys() == model.state_dict().keys()
    assert all(parameter.requires_grad for parameter in merged.parameters())
    merged.save(str(tmp_path), create_model_card=False)
    assert not list(tmp_path.rglob("adapter*"))
    reloaded = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(reloaded.encode(TEXTS), vectors, atol=1e-5)
    add_lora(merged, 2)


def test_the_scale_is_alpha_over_rank(model: SentenceTransformer) -> None:
    """A scale of another convention trains at another learning rate, unseen."""
    adapted = add_lora(model, 4, alpha=8)
    linear = adapted.transformers_model.encoder.layer[0].attention.self.query
    b, a = linear.lora_B["default"].weight, linear.lora_A["default"].weight
    torch.nn.init.ones_(b)
    merged = merge_lora(adapted).transformers_model.encoder.layer[0].attention.self.query.weight
    torch.testing.assert_close(merged, linear.base_layer.weight + 8 / 4 * b @ a)


def test_the_seed_draws_the_adapters(model: SentenceTransformer) -> None:
    state = torch.get_rng_state()
    weights, same, differing = (add_lora(model, 4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    drawn = [name for name in weights if "lora_A" in name]
    assert all(torch.equal(weights[name], same[name]) for name in drawn)
    assert not any(torch.equal(weights[name], differing[name]) for name in drawn)


def test_both_towers_and_cross_encoders(model: SentenceTransformer, tmp_path: Path) -> None:
    """Adapters in the first transformer that is found would leave the documents' frozen."""
    adapted = add_lora(two_towers(model, model), 4)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * LAYERS * 6
    train(adapted)
    merged = merge_lora(adapted)
    np.testing.assert_allclose(merged.encode_query(TEXTS), adapted.encode_query(TEXTS), atol=1e-6)
    cross = CrossEncoder(str(save_tiny_cross_encoder(tmp_path)), device="cpu")
    pairs = [("vitamin", text) for text in TEXTS]
    whole = merge_lora(add_lora(cross, 4))
    np.testing.assert_allclose(whole.predict(pairs), cross.predict(pairs), atol=1e-6)


def test_mistakes(model: SentenceTransformer) -> None:
    for rank, alpha, dropout in ((0, 16, 0), (4, 0, 0), (4, 16, 1)):
        with pytest.raises(ConfigError, match=f"but got {rank}, {alpha} and {dropout}"):
            add_lora(model, rank, alpha, dropout)
    with pytest.raises(ConfigError, match="named 'q_proj'. Their names end in dense, key"):
        add_lora(model, 4, targets=["query", "q_proj"])
    with pytest.raises(ConfigError, match="'auto' or a list of names, but got 'query'"):
        add_lora(model, 4, targets="query")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="merge them first"):
        add_lora(add_lora(model, 4), 4)
    with pytest.raises(ConfigError, match="no adapters to merge"):
        merge_lora(model)


def test_without_peft(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"retrodistill\[lora\]"):
        add_lora(model, 4)
