"""Losses of a live teacher's scores: numbers by hand, and what they would silently become."""

import math

import pytest
import torch

from retrodistill.objectives.losses.listwise import listwise_kl
from retrodistill.objectives.losses.live import batch_kl, batch_margin_mse
from retrodistill.objectives.losses.pairwise import margin_mse

STUDENT = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
TEACHER = torch.tensor([[5.0, 1.0, 2.0], [1.0, 0.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([[True, False, False], [False, False, True]])


def test_batch_kl_by_hand() -> None:
    """Teacher (3/4, 1/4) at T = 1/2, student equal: 3/4 ln(3/2) + 1/4 ln(1/2) nats."""
    teacher = torch.tensor([[0.5 * math.log(3.0), 0.0]], dtype=torch.float64)
    loss = batch_kl(torch.zeros_like(teacher), teacher, teacher_temperature=0.5)
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    equal = batch_kl(teacher, teacher, student_temperature=1.0, teacher_temperature=1.0)
    assert equal.item() == pytest.approx(0.0, abs=1e-12)


def test_batch_kl_is_not_that_of_a_query_s_own_candidates() -> None:
    """A teacher of the whole batch, of which only the query's own list is learned."""
    settings = {"student_temperature": 1.0, "teacher_temperature": 1.0}
    own = torch.tensor([[True, True, False], [True, False, True]])
    whole = batch_kl(STUDENT, TEACHER, **settings).item()
    assert whole != pytest.approx(listwise_kl(STUDENT, TEACHER, own, **settings).item(), rel=0.01)
    everything = torch.ones_like(own)
    assert whole == pytest.approx(listwise_kl(STUDENT, TEACHER, everything, **settings).item())


def test_batch_margin_mse_by_hand() -> None:
    """Student margins 1, 2 and 3, 3; teacher margins 4, 3 and 0, 1: (9 + 1 + 9 + 4) / 4.

    The positive's margin over itself, 0 on both sides, would make a mean over six of it.
    """
    loss = batch_margin_mse(STUDENT, TEACHER, LABELS)
    assert loss.item() == pytest.approx((9 + 1 + 9 + 4) / 4)
    halved = batch_margin_mse(STUDENT / 2, TEACHER, LABELS, student_temperature=0.5)
    assert halved.item() == pytest.approx(loss.item())


def test_batch_margin_mse_is_not_that_of_a_query_s_own_candidates() -> None:
    """A recipe's second half that is its first once more: own negatives, no document of others."""
    first = torch.tensor([[True, True, False]])
    own = margin_mse(STUDENT[:1], TEACHER[:1], first)
    assert own.item() == 9.0
    assert batch_margin_mse(STUDENT[:1], TEACHER[:1], LABELS[:1]).item() == 5.0


def test_a_query_with_two_positives_compares_both_with_each_other() -> None:
    """A second positive taken for a document of no grade, or a pair of it with itself."""
    labels = torch.tensor([[True, True, False]])
    loss = batch_margin_mse(STUDENT[:1], TEACHER[:1], labels)
    # of the first 1 vs 4 and 2 vs 3, of the second -1 vs -4 and 1 vs -1
    assert loss.item() == pytest.approx((9 + 1 + 9 + 4) / 4)


def test_a_batch_without_a_label_costs_nothing() -> None:
    """The mean of no pair, NaN, or a loss without a graph."""
    student = STUDENT.clone().requires_grad_()
    loss = batch_margin_mse(student, TEACHER, torch.zeros_like(LABELS))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


def test_a_scaled_loss_asks_for_the_proportions_of_the_margins() -> None:
    """A bounded teacher whose small margins the student's scores have to shrink to."""
    signals = STUDENT, TEACHER / 50, LABELS
    assert batch_margin_mse(*signals, scaled=True).item() == pytest.approx(
        batch_margin_mse(STUDENT, TEACHER, LABELS, scaled=True).item()
    )
    assert batch_margin_mse(TEACHER / 9, TEACHER, LABELS, scaled=True).item() == pytest.approx(0)
    assert batch_margin_mse(*signals, scaled=True).item() > 0.1
