"""Attention by products is PyTorch's attention, with masks and scales."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from retrodistill.models.inference import attention as module
from retrodistill.models.inference.attention import products, register_attention


def heads(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, 4, 10, 8).to(dtype) for _ in range(3)]


def masks() -> dict[str, Tensor | None]:
    real = torch.ones(3, 1, 10, 10, dtype=torch.bool)
    real[0, ..., 6:] = False
    real[2, ..., 1:] = False
    added = torch.zeros(3, 1, 10, 10).masked_fill(~real, torch.finfo(torch.float32).min)
    return {"none": None, "boolean": real, "added": added}


@pytest.mark.parametrize("mask", ["none", "boolean", "added"])
@pytest.mark.parametrize("scale", [None, 0.1])
def test_products_are_attention(mask: str, scale: float | None) -> None:
    """A forgotten scale, or padding that is looked at."""
    expected = scaled_dot_product_attention(*heads(), attn_mask=masks()[mask], scale=scale)
    torch.testing.assert_close(products(*heads(), masks()[mask], scale), expected)


@pytest.mark.parametrize("faster", [False, True])
def test_models_take_what_is_faster(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice that is measured and not taken, or taken where it does not belong."""
    from transformers import AutoModel, BertConfig

    monkeypatch.setattr(module, "products_are_faster", lambda *size: faster)
    asked: list[torch.dtype] = []
    plain = products

    def watched(query: Tensor, *rest: object) -> Tensor:
        asked.append(query.dtype)
        return plain(query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "products", watched)
    register_attention()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
    )
    body = AutoModel.from_config(config).eval()
    ids = torch.arange(40).view(4, 10)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0

    def states(dtype: torch.dtype) -> Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            found: Tensor = body(input_ids=ids, attention_mask=mask).last_hidden_state
        return found

    with torch.no_grad():
        exact = states(torch.float32)
        assert asked == []
        half = states(torch.bfloat16)
        assert len(asked) == 2 * faster
    torch.testing.assert_close(half[mask.bool()], exact[mask.bool()], atol=0.06, rtol=0.06)
    states(torch.bfloat16).sum().backward()
    assert len(asked) == 2 * faster  # a training keeps PyTorch's kernel
