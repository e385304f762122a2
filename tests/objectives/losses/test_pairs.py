"""Scores of a head over both vectors: a number by hand, and a reference."""

import pytest
import torch
from fakes.batch import batch, value
from torch.nn.functional import mse_loss

from retrodistill.objectives.losses.pairs import dse


def test_dse_by_hand() -> None:
    """Head 1 and 3, teacher 4 and 2, T = 2: errors of 1 - 2 and 3 - 1: (1 + 4) / 2 = 2.5.

    The third candidate is padding.
    """
    loss = dse(
        torch.tensor([[1.0, 3.0, 9.0]]),
        torch.tensor([[4.0, 2.0, 0.0]]),
        torch.tensor([[True, True, False]]),
        teacher_temperature=2.0,
    )
    assert loss.item() == 2.5


def test_dse_against_torch() -> None:
    """A mean of each list's mean, in which a pair of a short list counts more."""
    signals = batch()
    real = signals["mask"]
    expected = mse_loss(signals["pair_scores"][real], signals["teacher_scores"][real])
    assert value("dse", signals).item() == pytest.approx(expected.item())


def test_dse_learns_the_height_of_a_score() -> None:
    """A margin loss by mistake, at which the head of another zero would be perfect."""
    signals = batch()
    signals["pair_scores"] = signals["teacher_scores"] + 3.0
    assert value("dse", signals).item() == pytest.approx(9.0)
