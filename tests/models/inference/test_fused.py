"""Linear layers as one operation give what PyTorch's three give, and leave no trace."""

from pathlib import Path

import pytest
import torch
from fakes.models import save_tiny_body
from torch import Tensor, nn

from retrodistill.models.inference import fused
from retrodistill.models.inference.fused import FEW, fused_layers

IDS = torch.arange(FEW).reshape(8, -1) % 100 + 5


@pytest.fixture
def body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A BERT with random weights, on a machine where one operation is faster."""
    from transformers import AutoModel

    if fused._product() is None:
        pytest.skip("this build of PyTorch has no oneDNN")
    monkeypatch.setattr(fused, "one_operation_is_faster", lambda dtype: True)
    save_tiny_body(tmp_path, layers=2, dimension=32, seed=0)
    return AutoModel.from_pretrained(tmp_path).eval()


def hidden(body: nn.Module, *, one_operation: bool) -> Tensor:
    with torch.inference_mode():
        if not one_operation:
            return body(input_ids=IDS).last_hidden_state
        with fused_layers(body, IDS, torch.float32):
            return body(input_ids=IDS).last_hidden_state


def replaced(body: nn.Module) -> list[str]:
    return [name for name, module in body.named_modules() if "forward" in module.__dict__]


def test_one_operation_gives_the_same(body: nn.Module) -> None:
    """A wrong activation or a forgotten bias, which a ranking may not show."""
    plain = hidden(body, one_operation=False)
    torch.testing.assert_close(hidden(body, one_operation=True), plain, atol=1e-5, rtol=1e-5)
    with torch.inference_mode(), fused_layers(body, IDS, torch.float32):
        names = replaced(body)
    assert "encoder.layer.0.intermediate" in names
    assert "encoder.layer.1.attention.self.query" in names


def test_changed_weights_are_used(body: nn.Module) -> None:
    """A dev search that always measures the weights of the first one."""
    first = hidden(body, one_operation=True)
    with torch.no_grad():
        for weights in body.parameters():
            weights.mul_(1.5)
    now = hidden(body, one_operation=True)
    assert not torch.allclose(first, now, atol=1e-3)
    plain = hidden(body, one_operation=False)
    torch.testing.assert_close(now, plain, atol=1e-5, rtol=1e-5)


def test_nothing_stays_behind(body: nn.Module) -> None:
    """Training or saving a model whose layers have no gradient any more."""
    with (
        pytest.raises(ZeroDivisionError),
        torch.inference_mode(),
        fused_layers(body, IDS, torch.float32),
    ):
        raise ZeroDivisionError
    assert replaced(body) == []


def test_training_and_short_batches_are_left_alone(body: nn.Module) -> None:
    """Layers without gradients in a training."""
    with fused_layers(body, IDS, torch.float32):
        assert replaced(body) == []
    with torch.inference_mode(), fused_layers(body, IDS[:1, :4], torch.float32):
        assert replaced(body) == []


def test_bfloat16_products_are_those_of_autocast(body: nn.Module) -> None:
    """Float32 products under bfloat16, or weights that are cast once and then go stale."""

    def states(*, one_operation: bool) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            if not one_operation:
                return body(input_ids=IDS).last_hidden_state
            with fused_layers(body, IDS, torch.bfloat16):
                assert replaced(body)
                product = body.get_submodule("encoder.layer.0.output.dense")
                assert product(torch.ones(2, product.in_features)).dtype == torch.bfloat16
                return body(input_ids=IDS).last_hidden_state

    first = states(one_operation=True)
    torch.testing.assert_close(first, states(one_operation=False), atol=0.05, rtol=0.05)
    with torch.no_grad():
        for weights in body.parameters():
            weights.mul_(1.5)
    plain = states(one_operation=False)
    now = states(one_operation=True)
    assert (now - plain).abs().mean() < (first - plain).abs().mean() / 10


def test_a_forward_of_somebody_else_stays(body: nn.Module) -> None:
    """A hook of another library that is thrown away after the first batch."""
    layer = body.get_submodule("encoder.layer.0.output.dense")
    layer.__dict__["forward"] = custom = lambda x: nn.functional.linear(x, layer.weight)  # type: ignore[arg-type]
    with torch.inference_mode(), fused_layers(body, IDS, torch.float32):
        assert layer.__dict__["forward"] is custom
    assert replaced(body) == ["encoder.layer.0.output.dense"]
    output_layer = body.get_submodule("encoder.layer.1.output.dense")
    output_layer.__dict__["forward"] = custom  # after the first batch, too
    with torch.inference_mode(), fused_layers(body, IDS, torch.float32):
        assert output_layer.__dict__["forward"] is custom
    assert len(replaced(body)) == 2
