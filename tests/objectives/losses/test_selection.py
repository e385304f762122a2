"""Losses that choose queries: numbers by hand, and what they would silently become."""

import math

import pytest
import torch
from fakes.batch import batch

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.listwise import listwise_kl
from retrodistill.objectives.losses.selection import selected_kl

PAIRS = torch.ones(2, 2, dtype=torch.bool)


def test_selected_kl_by_hand() -> None:
    """Of the first query the teacher is unsure, of the second the student: the second is chosen.

    There the student gives 1/2 and the teacher 9/10: KL 0.3681. The first, at KL 0.5108, would
    cost more, but nothing is to be learned from an even list.
    """
    nine = math.log(9)
    student = torch.tensor([[nine, 0.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0], [nine, 0.0]], dtype=torch.float64)
    loss = selected_kl(student, teacher, PAIRS)
    expected = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert student.grad is not None
    assert student.grad[1].any()
    assert not student.grad[0].any()


def test_a_share_of_one_is_listwise_kl_and_half_is_not() -> None:
    """A choice that chooses all, or that picks lists of one candidate, which teach nothing."""
    signals = batch()
    signals["mask"][2, 1:] = False
    lists = [signals[name] for name in ("student_scores", "teacher_scores", "mask")]
    plain = listwise_kl(*lists).item()
    assert selected_kl(*lists, share=1.0).item() == pytest.approx(plain)
    third = selected_kl(*lists, share=0.2).item()
    each = [listwise_kl(*(each[row : row + 1] for each in lists)).item() for row in (0, 1, 3)]
    assert any(third == pytest.approx(value) for value in each)
    with pytest.raises(ConfigError, match="share must be above 0"):
        selected_kl(*lists, share=0.0)
