"""Batches of a token budget, and the number type that a device gets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.models.inference import body_autocast, body_dtype, devices, token_batches

LENGTHS = st.lists(st.integers(min_value=0, max_value=600), max_size=80)
BUDGETS = st.integers(min_value=1, max_value=2000)
CPU = torch.device("cpu")


@given(LENGTHS, BUDGETS)
def test_every_row_is_in_one_batch(lengths: list[int], budget: int) -> None:
    """A skipped row keeps what was in the result before."""
    rows = [int(row) for batch in token_batches(lengths, budget) for row in batch]
    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_padded_tokens_stay_within_the_budget(lengths: list[int], budget: int) -> None:
    """The budget is what the memory was measured for; a single longer text may pass it."""
    for batch in token_batches(lengths, budget):
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


@given(LENGTHS, BUDGETS)
def test_longest_come_first(lengths: list[int], budget: int) -> None:
    """Running out of memory in the last hour instead of the first second."""
    ordered = [lengths[row] for batch in token_batches(lengths, budget) for row in batch]
    assert ordered == sorted(lengths, reverse=True)


def test_token_batches_by_hand() -> None:
    """Lengths 5 3 2 2 under 6 tokens: 5 alone, 3 with 2 (2 * 3 = 6), 2 alone."""
    batches = list(token_batches(np.array([2, 5, 3, 2]), 6))
    assert [batch.tolist() for batch in batches] == [[1], [2, 0], [3]]


def test_auto_is_float32_without_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated bfloat16 is hundreds of times slower, and nothing says why."""
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    assert body_dtype("auto", CPU) == torch.float32
    assert body_dtype("float32", CPU) == torch.float32
    with pytest.warns(UserWarning, match="no bfloat16 arithmetic"):
        assert body_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("speedup", "dtype"), [(8.0, torch.bfloat16), (0.5, torch.float32)])
def test_auto_is_bfloat16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, speedup: float, dtype: torch.dtype
) -> None:
    """A threefold speed left unused, or half of it lost to instructions that are only there."""
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(devices, "bfloat16_speedup", lambda device: speedup)
    assert body_dtype("auto", CPU) == dtype
    assert body_dtype("float32", CPU) == torch.float32
    assert body_dtype("bfloat16", CPU) == torch.bfloat16


def test_autocast_runs_products_in_the_dtype_and_keeps_weights() -> None:
    """Weights cast for good would be trained and saved in bfloat16."""
    layer = torch.nn.Linear(4, 4)
    for dtype in (torch.float32, torch.bfloat16):
        with body_autocast(dtype, CPU):
            assert layer(torch.ones(1, 4)).dtype == dtype
        assert layer.weight.dtype == torch.float32
