"""Losses over pairs of candidates: numbers by hand, and references."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fakes.batch import batch

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.pairwise import lambdarank, margin_mse, preference_kl, ranknet

WHOLE = torch.ones(1, 3, dtype=torch.bool)
STUDENT = torch.tensor([[0.0, math.log(3.0), 0.0]], dtype=torch.float64)
COSTS = np.array([math.log(4.0), math.log(2.0), math.log(4.0 / 3.0)])
"""What RankNet costs STUDENT for the pairs (0, 1), (0, 2), (1, 2): ln(1 + 3), ln 2, ln(1 + 1/3)."""


def test_margin_mse_by_hand() -> None:
    """Student margins 2-1=1 and 2-0=2; teacher margins 5-1=4 and 5-2=3: (9 + 1) / 2 = 5."""
    student = torch.tensor([[2.0, 1.0, 0.0]])
    teacher = torch.tensor([[5.0, 1.0, 2.0]])
    assert margin_mse(student, teacher, WHOLE).item() == 5.0
    # Temperatures divide: margins 10 and 20 against 2 and 1.5.
    halved = margin_mse(student, teacher, WHOLE, student_temperature=0.1, teacher_temperature=2.0)
    assert halved.item() == pytest.approx((8.0**2 + 18.5**2) / 2, rel=1e-5)


def test_scaled_margin_mse_by_hand() -> None:
    """Margins (1, 2) and (4, 3) at length: 2 - 2 cos = 2 - 2 * 10 / (5^0.5 * 5) = 0.2111."""
    student = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[5.0, 1.0, 2.0]], dtype=torch.float64)
    actual = margin_mse(student, teacher, WHOLE, scaled=True)
    assert actual.item() == pytest.approx(2 - 2 * 10 / (5**0.5 * 5))


def test_scaled_margins_make_the_teacher_of_cosines_reachable() -> None:
    """A teacher bounded in [-1, 1] whose scale the student can never take over."""
    signals = batch()
    teacher, mask = signals["teacher_scores"], signals["mask"]
    shift = torch.arange(4.0, dtype=torch.float64)[:, None]
    student = 0.01 * teacher + shift
    plain, scaled = (margin_mse(student, teacher, mask, scaled=scale) for scale in (False, True))
    assert plain.item() > 0.1
    assert scaled.item() == pytest.approx(0.0, abs=1e-12)
    turned = margin_mse(-student, teacher, mask, scaled=True)
    assert turned.item() == pytest.approx(4.0)


@pytest.mark.parametrize("flat", ["student_scores", "teacher_scores"])
def test_scaled_margins_survive_a_side_without_any(flat: str) -> None:
    """NaN from 0 / 0 where a teacher gives all candidates of a batch the same grade."""
    signals = batch()
    signals[flat] = torch.ones_like(signals[flat])
    student = signals["student_scores"].requires_grad_()
    loss = margin_mse(student, signals["teacher_scores"], signals["mask"], scaled=True)
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_scaled_margins_have_the_right_gradient() -> None:
    """A scale without a gradient, so that the student grows its margins to shrink the loss."""
    signals = batch(b=3, n=4)
    student = signals["student_scores"].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: margin_mse(s, signals["teacher_scores"], signals["mask"], scaled=True), (student,)
    )


def test_ranknet_by_hand() -> None:
    """Teacher 0 over 1 over 2: (ln 4 + ln 2 + ln(4/3)) / 3 = 0.789 nats."""
    teacher = torch.tensor([[9.0, 5.0, 4.9]], dtype=torch.float64)
    assert ranknet(STUDENT, teacher, WHOLE).item() == pytest.approx(COSTS.mean())
    tied = torch.tensor([[9.0, 9.0, 4.9]], dtype=torch.float64)
    assert ranknet(STUDENT, tied, WHOLE).item() == pytest.approx(COSTS[1:].mean())
    hot = ranknet(STUDENT * 5.0, teacher, WHOLE, student_temperature=5.0)
    assert hot.item() == pytest.approx(COSTS.mean())


def test_lambdarank_by_hand() -> None:
    """Gains 1, 1/2, 0 at the discounts of ranks 2, 1, 3.

    w = (1/2)(1 - 0.631), 1 (0.631 - 0.5), (1/2)(1 - 0.5) = 0.185, 0.131, 0.25, all over the
    same ideal: (0.185 ln 4 + 0.131 ln 2 + 0.25 ln(4/3)) / 0.566 = 0.740 nats.
    """
    teacher = torch.tensor([[6.0, 5.0, 4.0]], dtype=torch.float64)
    second = 1 / math.log2(3)
    weights = np.array([0.5 * (1 - second), second - 0.5, 0.5 * 0.5])
    expected = (weights * COSTS).sum() / weights.sum()
    assert lambdarank(STUDENT, teacher, WHOLE).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_pairwise_losses_against_loops(depth: int) -> None:
    """A weight that is not the change of nDCG@depth by the swap, found by swapping."""
    signals = batch(seed=3)
    student, teacher, mask = (
        signals[name].numpy() for name in ("student_scores", "teacher_scores", "mask")
    )
    costs, weights = [], []
    for row in range(len(student)):
        s, t = student[row][mask[row]] / 0.5, teacher[row][mask[row]]
        gains = (t - t.min()) / (t.max() - t.min())

        def ndcg(order: list[int], gains: np.ndarray = gains) -> float:
            ideal = sorted(gains, reverse=True)
            return sum(
                gains[doc] / math.log2(rank + 2) for rank, doc in enumerate(order[:depth])
            ) / sum(gain / math.log2(rank + 2) for rank, gain in enumerate(ideal[:depth]))

        order = sorted(range(len(s)), key=lambda doc: -s[doc])
        for i in range(len(s)):
            for j in range(len(s)):
                if t[i] > t[j]:
                    swap = {i: j, j: i}
                    swapped = [swap.get(doc, doc) for doc in order]
                    costs.append(np.log1p(np.exp(s[j] - s[i])))
                    weights.append(abs(ndcg(order) - ndcg(swapped)))
    lists = (signals["student_scores"], signals["teacher_scores"], signals["mask"])
    actual = ranknet(*lists, student_temperature=0.5)
    assert actual.item() == pytest.approx(np.mean(costs))
    actual = lambdarank(*lists, student_temperature=0.5, depth=depth)
    assert actual.item() == pytest.approx(np.average(costs, weights=weights), rel=1e-6)


@pytest.mark.parametrize("loss", [ranknet, lambdarank])
def test_a_teacher_without_an_order_costs_nothing(loss: Callable[..., torch.Tensor]) -> None:
    """The mean over no pair, NaN, where an LLM's grades are all the same."""
    student = STUDENT.clone().requires_grad_()
    value = loss(student, torch.ones_like(STUDENT), WHOLE)
    value.backward()
    assert value.item() == 0
    assert student.grad is not None
    assert student.grad.eq(0).all()


def test_lambdarank_refuses_an_empty_ranking() -> None:
    """All weights 0 at depth 0, and NaN as the loss."""
    with pytest.raises(ConfigError, match="depth must be at least 1, but it is 0"):
        lambdarank(STUDENT, STUDENT, WHOLE, depth=0)


def only(i: int, j: int) -> torch.Tensor:
    """A mask of one compared pair, in one direction, of three candidates."""
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, i, j] = True
    return mask


def test_preference_kl_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308 nats."""
    teacher = torch.full((1, 3, 3), math.log(0.75), dtype=torch.float64)
    actual = preference_kl(STUDENT, teacher, only(0, 2))
    assert actual.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    # Candidate 1 is ahead of 0 by ln 3, which is the odds of 3/4.
    assert preference_kl(STUDENT, teacher, only(1, 0)).item() == pytest.approx(0.0, abs=1e-12)
    cold = preference_kl(STUDENT / 4, teacher, only(1, 0), student_temperature=0.25)
    assert cold.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("log_p", [0.0, float("-inf"), 1e-9])
def test_a_teacher_that_is_sure_gives_no_nan(log_p: float) -> None:
    """0 ln 0 = NaN, at a teacher's certainty: its loss is ln 2 where the student wavers."""
    sure = torch.full((1, 3, 3), log_p, dtype=torch.float64)
    student = STUDENT.clone().requires_grad_()
    loss = preference_kl(student, sure, only(0, 2))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2.0))
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_preference_kl_against_torch() -> None:
    """Rows and columns of the preferences exchanged: the student learns the reverse."""
    signals = batch()
    student, log_p = signals["student_scores"], signals["preferences"]
    losses = []
    for row, i, j in signals["preference_mask"].nonzero().tolist():
        pair = torch.stack([student[row, i], student[row, j]]) / 0.5
        target = torch.stack([log_p[row, i, j], (-log_p[row, i, j].expm1()).log()])
        losses.append(
            torch.nn.functional.kl_div(
                pair.log_softmax(-1), target, log_target=True, reduction="sum"
            )
        )
    actual = preference_kl(student, log_p, signals["preference_mask"], student_temperature=0.5)
    assert actual.item() == pytest.approx(torch.stack(losses).mean().item())
