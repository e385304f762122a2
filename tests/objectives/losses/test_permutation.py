"""Losses over an order: numbers by hand, and references."""

import itertools
import math

import numpy as np
import pytest
import torch
from fakes.batch import batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retrodistill.objectives.losses.listwise import listwise_kl
from retrodistill.objectives.losses.pairwise import ranknet
from retrodistill.objectives.losses.permutation import (
    approx_ndcg,
    listmle,
    listnet,
    partial_pl,
    partial_pl_in_batch,
    position_aware_listmle,
)

LISTS = ("student_scores", "teacher_scores", "mask")
LN2, LN3, LN4 = (math.log(number) for number in (2.0, 3.0, 4.0))


def row(*values: float) -> Tensor:
    """One list."""
    return torch.tensor([values], dtype=torch.float64)


def whole(of: Tensor) -> Tensor:
    """A mask without padding."""
    return torch.ones_like(of, dtype=torch.bool)


def test_listnet_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/4, 3/4): 3/4 ln 4 + 1/4 ln(4/3) = 1.112 nats."""
    actual = listnet(row(0.0, LN3), row(LN3, 0.0), whole(row(0.0, 0.0)))
    assert actual.item() == pytest.approx(0.75 * LN4 + 0.25 * math.log(4 / 3))


def test_listnet_against_torch() -> None:
    """A cross-entropy whose roles of student and teacher are exchanged."""
    student, teacher, _ = (batch()[name] for name in LISTS)
    target = (teacher / 2.0).softmax(-1)
    expected = torch.nn.functional.cross_entropy(student / 0.5, target)
    temperatures = {"student_temperature": 0.5, "teacher_temperature": 2.0}
    actual = listnet(student, teacher, whole(student), **temperatures)
    assert actual.item() == pytest.approx(expected.item())
    kl = listwise_kl(student, teacher, whole(student), **temperatures)
    entropy = torch.special.entr(target).sum(-1).mean()
    assert actual.item() == pytest.approx((kl + entropy).item())


@pytest.mark.parametrize(
    ("loss", "count", "expected"),
    [
        (listmle, 3, (LN3 + LN2) / 2),
        (listmle, 4, (LN4 + LN3 + LN2) / 3),
        (position_aware_listmle, 3, (3 * LN3 + LN2) / 4),
        (position_aware_listmle, 4, (7 * LN4 + 3 * LN3 + LN2) / 11),
        (partial_pl, 2, LN2),
        (partial_pl, 3, (LN3 + LN2) / 2),
        (partial_pl, 4, (LN4 + LN3) / 2),
    ],
)
def test_choices_among_equals_by_hand(loss: object, count: int, expected: float) -> None:
    """Each choice among k equals costs ln k; a mean over the choices, by their weights."""
    assert callable(loss)
    scores = torch.zeros(1, count, dtype=torch.float64)
    teacher = torch.arange(count, dtype=torch.float64)[None]
    assert loss(scores, teacher, whole(scores)).item() == pytest.approx(expected, rel=1e-6)


def test_plackett_luce_losses_against_loops() -> None:
    """A sum over all candidates at each place, or the student's order for the teacher's."""
    signals = batch(n=7)
    expected: dict[str, list[float]] = {"whole": [], "aware": [], "partial": []}
    for s, t, real in zip(*(signals[name].numpy() for name in LISTS), strict=True):
        ranked = s[real][np.argsort(-t[real])] / 0.5
        n = len(ranked)
        costs = [math.log(np.exp(ranked[k:]).sum()) - ranked[k] for k in range(n - 1)]
        expected["whole"].append(np.mean(costs))
        weights = [2 ** (n - k - 1) - 1 for k in range(n - 1)]
        expected["aware"].append(np.average(costs, weights=weights))
        expected["partial"].append(np.mean(costs[:2]))
    lists = [signals[name] for name in LISTS]
    losses = {"whole": listmle, "aware": position_aware_listmle, "partial": partial_pl}
    for name, loss in losses.items():
        actual = loss(*lists, student_temperature=0.5)
        assert actual.item() == pytest.approx(np.mean(expected[name]), rel=1e-6), name


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=4))
def test_the_probabilities_of_all_rankings_sum_to_one(scores: list[float]) -> None:
    """A likelihood that is not normalised: it rises for every ranking at once."""
    student = row(*scores)
    choices = len(scores) - 1
    total = sum(
        math.exp(-choices * listmle(student, row(*order), whole(student)).item())
        for order in itertools.permutations(range(len(scores)))
    )
    assert total == pytest.approx(1.0)


def test_a_list_of_two_is_a_pair() -> None:
    """A scale that differs from RankNet's where both are the same loss."""
    student, teacher = torch.randn(
        2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    expected = ranknet(student, teacher, whole(student)).item()
    for loss in (listmle, position_aware_listmle, partial_pl):
        actual = loss(student, teacher, whole(student), student_temperature=1.0)
        assert actual.item() == pytest.approx(expected), loss.__name__


def test_ties_of_the_teacher_are_broken_by_position() -> None:
    """An order of equal scores that changes with the device or the length of the list."""
    length = 40
    student = torch.randn(
        1, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    tied = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(1, length // 2)
    broken = tied - torch.arange(length) / 1000
    for loss in (listmle, position_aware_listmle, partial_pl):
        actual, expected = (loss(student, teacher, whole(student)) for teacher in (tied, broken))
        assert actual.item() == expected.item(), loss.__name__


def test_partial_pl_ignores_the_order_of_the_rest() -> None:
    """A preference between two, read as a ranking of the whole list."""
    student, mask = row(0.3, 0.1, 0.2, 0.7), whole(row(0.0, 0.0, 0.0, 0.0))
    loss, reversed_loss = (
        partial_pl(student, row(9.0, 8.0, *tail), mask) for tail in ((2, 1), (1, 2))
    )
    assert loss.item() == pytest.approx(reversed_loss.item())


def test_position_weights_of_a_long_list_do_not_overflow() -> None:
    """2^(n - k) beyond float32 at 128 candidates: infinity over infinity."""
    student = torch.zeros(1, 300, requires_grad=True)
    teacher = -torch.arange(300.0)[None]
    loss = position_aware_listmle(student, teacher, whole(student))
    loss.backward()
    # Half the weight on ln 300, a quarter on ln 299, ...
    expected = sum(math.log(300 - k) / 2 ** (k + 1) for k in range(299))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_approx_ndcg_by_hand() -> None:
    """Two equal scores share the rank 1.5: 1 - 1 / log2(2.5) = 0.2435."""
    actual = approx_ndcg(row(4.0, 4.0), row(9.0, 5.0), whole(row(0.0, 0.0)))
    assert actual.item() == pytest.approx(1 - 1 / math.log2(2.5))
    # Ahead by ln 3: rank 1 + 1/4.
    actual = approx_ndcg(row(LN3, 0.0), row(9.0, 5.0), whole(row(0.0, 0.0)))
    assert actual.item() == pytest.approx(1 - 1 / math.log2(2.25))


def test_approx_ndcg_tends_to_ndcg() -> None:
    """Smooth ranks that count padding, or count a candidate twice."""
    signals = batch(seed=4, n=7)
    expected = []
    for s, t, real in zip(*(signals[name].numpy() for name in LISTS), strict=True):
        gains = (t[real] - t[real].min()) / (t[real].max() - t[real].min())
        discounts = 1 / np.log2(np.arange(len(gains)) + 2)
        actual = (gains[np.argsort(-s[real])] * discounts).sum()
        expected.append(1 - actual / (np.sort(gains)[::-1] * discounts).sum())
    actual = approx_ndcg(*(signals[name] for name in LISTS), student_temperature=1e-5)
    assert actual.item() == pytest.approx(np.mean(expected), rel=1e-6)


def test_approx_ndcg_skips_lists_without_an_order() -> None:
    """An ideal DCG of 0, and NaN, at a list of which all grades are the same."""
    student, teacher, mask = (batch()[name] for name in LISTS)
    teacher[0] = 2.0
    student.requires_grad_()
    loss = approx_ndcg(student, teacher, mask)
    loss.backward()
    assert loss.item() == pytest.approx(approx_ndcg(student[1:], teacher[1:], mask[1:]).item())
    assert student.grad is not None
    assert student.grad[0].eq(0.0).all()
    assert student.grad.isfinite().all()
    assert approx_ndcg(student, torch.full_like(teacher, 2.0), mask).item() == 0


def test_partial_pl_in_batch_by_hand() -> None:
    """Equal scores of a pair and two documents of another query: ln 4, then ln 3."""
    signals = {
        "student_scores": torch.zeros(1, 2),
        "teacher_scores": row(1.0, 0.0),
        "mask": torch.ones(1, 2, dtype=torch.bool),
        "batch_scores": torch.zeros(1, 4),
        "batch_candidates": torch.tensor([[True, True, False, False]]),
        "batch_mask": torch.ones(1, 4, dtype=torch.bool),
    }
    assert partial_pl_in_batch(**signals).item() == pytest.approx((LN4 + LN3) / 2)
    signals["batch_mask"][0, 3] = False  # relevant to the query as well, though not drawn
    assert partial_pl_in_batch(**signals).item() == pytest.approx((LN3 + LN2) / 2)


def test_partial_pl_in_batch_is_not_infonce() -> None:
    """A preference stage that is InfoNCE: the second best as one of the negatives.

    Its gradient pushes the second below the batch; here it is pulled above it.
    """
    own = torch.tensor([[0.4, 0.0, -0.2]], requires_grad=True)
    others = torch.full((1, 8), 0.1)
    scores = torch.cat([own, others], dim=1)
    listed = torch.zeros(1, 11, dtype=torch.bool)
    listed[:, :3] = True
    mask, kept = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 11, dtype=torch.bool)
    partial_pl_in_batch(own, row(2.0, 1.0, 0.0), mask, scores, listed, kept).backward()
    assert own.grad is not None
    assert own.grad[0, 1] < 0  # descent raises the second
    assert own.grad[0, 2] > 0
    alone = partial_pl(own, row(2.0, 1.0, 0.0), mask)
    whole = partial_pl_in_batch(own, row(2.0, 1.0, 0.0), mask, scores, listed, kept)
    nothing_else = partial_pl_in_batch(own, row(2.0, 1.0, 0.0), mask, scores, listed, listed)
    assert nothing_else.item() == pytest.approx(alone.item())
    assert whole > alone + 0.1


def test_a_list_without_a_preference_teaches_nothing() -> None:
    """Equal scores, of which the earlier is taken for the better one."""
    flat = torch.ones(1, 3)
    mask, listed = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    assert partial_pl_in_batch(flat, flat, mask, flat, listed, listed).item() == 0.0
