"""Weights that are cast once for many passes."""

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_model

from retrodistill.models.inference import body_autocast, casts_kept
from retrodistill.models.students.dense import DenseEncoder

CPU = torch.device("cpu")


def casts_of(linear: torch.nn.Linear, passes: int) -> int:
    """Return how often the weights of a layer were cast in some forward passes."""
    inputs = torch.ones(4, linear.in_features)
    with torch.profiler.profile() as profile:
        for _ in range(passes):
            with body_autocast(torch.bfloat16, CPU):
                linear(inputs)
    counts = {event.key: event.count for event in profile.key_averages()}
    return int(counts.get("aten::_to_copy", 0)) - passes  # each pass casts its inputs


def test_weights_are_cast_once() -> None:
    """Inference mode keeps no casts: each pass of a query would copy every weight of the model."""
    linear = torch.nn.Linear(8, 8)
    with casts_kept(torch.bfloat16, CPU):
        kept = casts_of(linear, passes=5)
    with torch.no_grad():
        plain = casts_of(linear, passes=5)
    assert plain == 5 * 2  # weight and bias
    assert kept == 2


@pytest.mark.filterwarnings("ignore:this cpu has no bfloat16")
def test_blocks_do_not_change_vectors(tmp_path) -> None:
    """What follows the body is float32: a block around it may not make it bfloat16."""
    encoder = DenseEncoder(save_tiny_model(tmp_path), precision="bfloat16")
    rows, beside = encoder.tokenized(["protein cell", "egg"], "query")
    with torch.no_grad():
        plain = encoder._forward(rows, beside, "query")
    with encoder.encoding():
        first, again = (encoder._forward(rows, beside, "query") for _ in range(2))
    np.testing.assert_array_equal(first, plain)
    np.testing.assert_array_equal(again, plain)
    assert np.abs(np.linalg.norm(first, axis=1) - 1).max() < 1e-6


@pytest.mark.filterwarnings("ignore:this cpu has no bfloat16")
def test_weights_that_change_between_blocks_are_read_again(tmp_path) -> None:
    """Kept beyond its block, a cast would hide what training did meanwhile."""
    encoder = DenseEncoder(save_tiny_model(tmp_path), precision="bfloat16")
    before = encoder.encode_queries(["protein cell"])
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.mul_(1.5)
    assert np.abs(encoder.encode_queries(["protein cell"]) - before).max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_gradients_in_a_block(dtype: torch.dtype) -> None:
    """A pass that records its graph holds all activations of a collection in memory."""
    linear = torch.nn.Linear(2, 2)
    with casts_kept(dtype, CPU), body_autocast(dtype, CPU):
        assert not linear(torch.ones(1, 2)).requires_grad
