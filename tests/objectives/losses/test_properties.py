"""Properties of the losses over lists, for all lists: signs, orders, shifts, holes."""

import pytest
import torch
from fakes.batch import batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retrodistill.objectives.objective import Signals, bind, parse_objective

SHIFT_FREE = [
    "margin-mse",
    "margin-mse(scaled=true)",
    "ranknet",
    "lambdarank(depth=2)",
    "listwise-kl(teacher_temperature=0.5)",
    "top-k-kl(k=2)",
    "standardised-kl",
    "sampled-kl",
    "fused-kl",
    "listnet",
    "listmle",
    "position-aware-listmle",
    "partial-pl",
    "approx-ndcg",
]
LISTS = [*SHIFT_FREE, "top-k-kl(k=2,factor=0.1)", "one-vs-rest", "sorted-w1"]
ORDER_FREE = [*LISTS, "preference-kl", "listwise-kl-in-batch"]

few = settings(max_examples=10, deadline=None)
# Whole numbers, so that ties are drawn as well.
score = st.integers(-30, 30).map(float)
entry = st.tuples(score, score, st.booleans(), st.booleans(), st.integers(0, 3).map(float))


def measure(objective: str, signals: Signals) -> Tensor:
    """Return the value of an objective of one term."""
    (value,) = bind(parse_objective(objective))(signals).values()
    return value


@pytest.mark.parametrize("objective", LISTS)
@few
@given(st.lists(st.lists(entry, min_size=4, max_size=4), min_size=1, max_size=3))
def test_every_loss_of_lists_is_finite_and_not_negative(
    objective: str, drawn: list[list[tuple[float, float, bool, bool, float]]]
) -> None:
    """A loss below 0, or a NaN, at lists that random normal scores never show: ties, holes."""
    student, teacher, mask, labels, weights = torch.tensor(drawn, dtype=torch.float64).unbind(-1)
    student = student.contiguous().requires_grad_()
    signals = Signals(
        student_scores=student,
        teacher_scores=teacher,
        mask=mask.bool(),
        labels=labels.bool(),
        trusted_negatives=mask.bool(),
        log_weights=weights,
    )
    value = measure(objective, signals)
    value.backward()
    assert value.item() > -1e-9
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("objective", ORDER_FREE)
@few
@given(st.integers(0, 10_000), st.permutations(range(1, 6)))
def test_the_order_of_the_candidates_behind_the_first_does_not_count(
    objective: str, seed: int, order: list[int]
) -> None:
    """A loss that depends on the retriever's order, and so on how the candidates were mined."""
    signals = batch(seed, n=6)
    columns = [0, *order]
    shuffled = Signals(**signals)
    for name in (
        "student_scores",
        "teacher_scores",
        "mask",
        "labels",
        "trusted_negatives",
        "log_weights",
    ):
        shuffled[name] = signals[name][:, columns]
    for name in ("preferences", "preference_mask"):
        shuffled[name] = signals[name][:, columns][:, :, columns]
    actual, expected = measure(objective, shuffled), measure(objective, signals)
    assert actual.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("objective", SHIFT_FREE)
@few
@given(st.integers(0, 10_000), st.lists(st.floats(-50, 50), min_size=4, max_size=4))
def test_a_constant_added_to_a_query_of_the_teacher_changes_nothing(
    objective: str, seed: int, shifts: list[float]
) -> None:
    """A loss that compares the teacher's scores of different queries, which mean nothing."""
    signals = batch(seed)
    moved = Signals(**signals)
    moved["teacher_scores"] = signals["teacher_scores"] + torch.tensor(shifts)[:, None]
    actual, expected = measure(objective, moved), measure(objective, signals)
    assert actual.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("objective", LISTS)
def test_holes_count_like_padding_at_the_end(objective: str) -> None:
    """A place in the list taken for a place among the real candidates."""
    signals = batch(n=7)
    signals["mask"][1, 3] = signals["mask"][2, 4] = False
    closed = Signals(**signals)
    order = signals["mask"].logical_not().long().argsort(dim=-1, stable=True)
    for name in (
        "student_scores",
        "teacher_scores",
        "mask",
        "labels",
        "trusted_negatives",
        "log_weights",
    ):
        closed[name] = signals[name].gather(-1, order)
    assert not closed["mask"].equal(signals["mask"])
    actual, expected = measure(objective, closed), measure(objective, signals)
    assert actual.item() == pytest.approx(expected.item())
