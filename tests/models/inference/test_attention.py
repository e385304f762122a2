"""Models take the faster attention, and their results are those of PyTorch's."""

import pytest
import torch
from torch import Tensor

from retrodistill.models.inference import attention as module
from retrodistill.models.inference import products
from retrodistill.models.inference.attention import products_are_faster, register_attention
from retrodistill.models.inference.unpadded import unpadded


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, float]]:
    """Return the list in which number type and dropout of each attention by products are noted."""
    calls: list[tuple[torch.dtype, float]] = []
    plain = products.attention_by_products

    def watched(query: Tensor, *rest: object, dropout: float, **settings: object) -> Tensor:
        calls.append((query.dtype, dropout))
        return plain(query, *rest, dropout=dropout, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(products, "attention_by_products", watched)
    register_attention()
    return calls


def body(*, dropout: float = 0.0) -> torch.nn.Module:
    from transformers import AutoModel, BertConfig

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=dropout,
    )
    return AutoModel.from_config(config).eval()  # type: ignore[no-any-return]


def batch(texts: int = 4) -> dict[str, Tensor]:
    ids = torch.arange(texts * 10).view(texts, 10) % 100
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def states(model: torch.nn.Module, features: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        found: Tensor = model(**features).last_hidden_state
    return found[features["attention_mask"].bool()]


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_take_what_is_faster(
    faster: bool,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[tuple[torch.dtype, float]],
) -> None:
    """A choice that is measured and not taken, or that changes what a model says."""
    model, features = body(), batch()
    monkeypatch.setattr(module, "products_are_faster", lambda *size, trains: False)
    with torch.no_grad():
        expected = states(model, features, torch.float32)
        assert asked == []
        monkeypatch.setattr(module, "products_are_faster", lambda *size, trains: faster)
        found = states(model, features, dtype)
    assert asked == [(dtype, 0.0)] * (2 * faster)
    off = 1e-5 if dtype == torch.float32 else 0.06
    torch.testing.assert_close(found, expected, atol=off, rtol=off)


def test_training_has_a_choice_of_its_own(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[torch.dtype, float]]
) -> None:
    """A training that takes the kernel which is faster forwards only."""
    monkeypatch.setattr(module, "products_are_faster", lambda *size, trains: trains)
    model, features = body(), batch()
    with torch.no_grad():
        states(model, features, torch.float32)
    assert asked == []
    states(model, features, torch.float32).sum().backward()
    assert len(asked) == 2


@pytest.mark.parametrize("packed", [False, True])
def test_dropout_is_left_to_products(
    packed: bool, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[torch.dtype, float]]
) -> None:
    """A training without the dropout that the model asks for."""
    monkeypatch.setattr(module, "products_are_faster", lambda *size, trains: False)
    model, features = body(dropout=0.5).train(), batch(texts=60)
    torch.manual_seed(0)
    if packed:
        with unpadded(model, features, torch.float32):
            dropped = states(model, features, torch.float32)
    else:
        dropped = states(model, features, torch.float32)
    assert asked == [(torch.float32, 0.5)] * 2
    assert (dropped - states(model.eval(), features, torch.float32)).abs().mean() > 0.001
    assert len(asked) == 2


def test_trials_compare_the_same_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of two things of which one does less, or that cannot be differentiated."""
    from retrodistill.models.inference import attention

    compared = []

    def speedup(name: str, trial: object) -> float:
        first, second = trial()  # type: ignore[operator]
        compared.append((name, first(), second()))
        return 2.0

    monkeypatch.setattr(attention, "speedup", speedup)
    for trains in (False, True):
        assert products_are_faster.__wrapped__(torch.float32, 2, 8, 16, trains=trains)
    names = [name for name, *_ in compared]
    assert ["inference" in names[0], "training" in names[1]] == [True, True]
    for _, first, second in compared:
        torch.testing.assert_close(first, second)


def test_a_small_batch_has_the_attention_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training whose first small batches differ from those after a large one, or a resume."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setattr(module, "register_attention", register_attention.__wrapped__)
    from retrodistill.models.inference import unpadded as layers

    monkeypatch.setattr(layers, "register_attention", register_attention.__wrapped__)
    try:
        with unpadded(body(), batch(), torch.float32):
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before
    finally:
        ALL_ATTENTION_FUNCTIONS.register("sdpa", before)
