"""Losses by optimal transport: numbers by hand, and references."""

import math

import numpy as np
import pytest
import torch
from fakes.batch import batch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance
from torch import Tensor

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.transport import sinkhorn, sorted_w1


def clouds(seed: int, count: int = 6, width: int = 3) -> Tensor:
    """Two clouds of vectors: (2, count, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, width, generator=generator, dtype=torch.float64)


def costs(x: Tensor, y: Tensor) -> np.ndarray:
    """1 - cosine of each vector of the one with each of the other."""
    return 1 - torch.nn.functional.cosine_similarity(x[:, None], y, dim=-1).numpy()


def test_sorted_w1_by_hand() -> None:
    """Sorted, 1 and 0 against 3 and 0: (2 + 0) / 2 = 1."""
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert sorted_w1(student, teacher, mask).item() == 1.0
    actual = sorted_w1(student, teacher, mask, student_temperature=0.5, teacher_temperature=3.0)
    assert actual.item() == pytest.approx(0.5)


def test_sorted_w1_against_scipy() -> None:
    """Padding that takes a place among the sorted scores."""
    signals = batch(n=8)
    names = ("student_scores", "teacher_scores", "mask")
    expected = [
        wasserstein_distance(student[real], teacher[real])
        for student, teacher, real in zip(*(signals[name].numpy() for name in names), strict=True)
    ]
    actual = sorted_w1(*(signals[name] for name in names))
    assert actual.item() == pytest.approx(np.mean(expected))


def test_sinkhorn_by_hand() -> None:
    """One document each, at 90 degrees: the cost is 1, and a cloud costs itself nothing."""
    x, y = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert sinkhorn(x, y).item() == pytest.approx(1.0)
    # So much blur that every plan is the independent one: mean costs 3/4 - (1/2 + 1/2) / 2.
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    actual = sinkhorn(x.double(), y.double(), epsilon=1e4, iterations=2)
    assert actual.item() == pytest.approx(1.0 - 0.5, abs=1e-3)


def test_sinkhorn_against_a_plain_iteration() -> None:
    """A dual value that is not the cost of a plan with the right margins."""
    x, y = clouds(0)

    def cost(matrix: np.ndarray, epsilon: float = 0.5) -> float:
        kernel = np.exp(-matrix / epsilon)
        share = np.full(len(matrix), 1 / len(matrix))
        v = share
        for _ in range(400):
            u = share / (kernel @ v)
            v = share / (kernel.T @ u)
        plan = u[:, None] * kernel * v
        np.testing.assert_allclose(plan.sum(1), share, rtol=1e-6)
        independent = share[:, None] * share
        return float((plan * matrix).sum() + epsilon * (plan * np.log(plan / independent)).sum())

    expected = cost(costs(x, y)) - (cost(costs(x, x)) + cost(costs(y, y))) / 2
    actual = sinkhorn(x, y, epsilon=0.5, iterations=400)
    assert actual.item() == pytest.approx(expected, rel=1e-6)


def test_sinkhorn_tends_to_the_best_assignment() -> None:
    """A regularised cost that is reported as a distance, and is not near one."""
    x, y = clouds(1)
    matrix = costs(x, y)
    expected = matrix[linear_sum_assignment(matrix)].mean()
    actual = sinkhorn(x, y, epsilon=0.005, iterations=800)
    assert actual.item() == pytest.approx(expected, abs=0.01)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(6)))
def test_sinkhorn_is_a_divergence_of_clouds(seed: int, order: list[int]) -> None:
    """A value below 0, or above 0 where the documents are the same in another order."""
    x, y = clouds(seed)
    assert sinkhorn(x, y).item() > 0.0
    assert sinkhorn(x, y).item() == pytest.approx(sinkhorn(x, y[order]).item())
    assert sinkhorn(x, 3.0 * x[order]).item() == pytest.approx(0.0, abs=1e-6)


def test_sinkhorn_moves_the_student_onto_the_teacher() -> None:
    """A gradient that does not lead where the loss is 0."""
    student, teacher = clouds(2, count=4)
    before = sinkhorn(student, teacher).item()
    for _ in range(30):
        student.requires_grad_()
        (slope,) = torch.autograd.grad(sinkhorn(student, teacher, iterations=10), student)
        student = student.detach() - 2.0 * slope
    assert sinkhorn(student, teacher).item() < 0.1 * before


def test_sinkhorn_stays_finite_with_little_blur() -> None:
    """exp(-cost / epsilon) = 0 in float32, and a division by it, outside the log domain."""
    x, y = clouds(3).float()
    x.requires_grad_()
    loss = sinkhorn(x, y, epsilon=1e-3)
    loss.backward()
    assert math.isfinite(loss.item())
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_sinkhorn_refuses_settings_without_meaning() -> None:
    """Potentials that no iteration has touched, and a loss of 0 everywhere."""
    x, y = clouds(0)
    with pytest.raises(ConfigError, match=r"epsilon must be above 0, but it is 0\.0"):
        sinkhorn(x, y, epsilon=0.0)
    with pytest.raises(ConfigError, match="iterations must be at least 1, but it is 0"):
        sinkhorn(x, y, iterations=0)
