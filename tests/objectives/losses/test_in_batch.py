"""Losses over a query's list and the rest of the batch: numbers by hand, and references."""

import math

import numpy as np
import pytest
import torch
from fakes.batch import batch, value

from retrodistill.objectives.losses.in_batch import in_batch_kl, listwise_kl_in_batch, m3_kd

TEACHER = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
"""Probabilities (3/4, 1/4)."""


def test_listwise_kl_in_batch_by_hand() -> None:
    """Teacher (1/2, 1/2) on two of four equal documents, student 1/4 each: KL = ln 2."""
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    loss = listwise_kl_in_batch(
        zeros,
        zeros,
        torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(1, 4, dtype=torch.float64),
        torch.tensor([[True, True, False, False]]),
        torch.tensor([[False, False, True, True]]),
        student_temperature=1.0,
    )
    assert loss.item() == pytest.approx(math.log(2.0))


def test_in_batch_kl_is_zero_where_the_rest_of_the_batch_gets_nothing() -> None:
    """A soft in-batch loss whose minimum is not the teacher's distribution."""
    teacher = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low = torch.full((3, 2), -1e6, dtype=torch.float64)
    mask = torch.ones(3, 4, dtype=torch.bool)
    loss = listwise_kl_in_batch(
        teacher * 0.05,
        teacher,
        mask,
        torch.cat([teacher * 0.05, low], dim=1),
        torch.tensor([[True] * 4 + [False] * 2] * 3),
        torch.ones(3, 6, dtype=torch.bool),
    )
    assert loss.item() == pytest.approx(0.0, abs=1e-9)


def test_in_batch_losses_against_numpy() -> None:
    """A denominator that runs over the wrong documents."""
    signals = batch()
    scores, mask = signals["batch_scores"].numpy(), signals["batch_mask"].numpy()
    labels = signals["batch_labels"].numpy()
    candidates = signals["mask"].numpy()
    student, teacher = signals["student_scores"].numpy(), signals["teacher_scores"].numpy()
    nce, kl = [], []
    for row in range(len(scores)):
        logits = scores[row] / 0.05
        negatives = logits[mask[row] & ~labels[row]]
        positive = logits[labels[row] & mask[row]][0]
        nce.append(-positive + np.logaddexp.reduce([positive, *negatives]))
        p = np.exp(teacher[row][candidates[row]])
        p /= p.sum()
        total = np.logaddexp.reduce(logits[mask[row]])
        kl.append((p * (np.log(p) - (student[row][candidates[row]] / 0.05 - total))).sum())
    assert value("contrastive", signals).item() == pytest.approx(np.mean(nce))
    assert value("listwise-kl-in-batch", signals).item() == pytest.approx(np.mean(kl))


def test_in_batch_kl_by_hand() -> None:
    """Teacher cosines ln 3 and 0 at T = 1, student equal: 3/4 ln(3/2) + 1/4 ln(1/2) nats."""
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    docs = torch.tensor([[math.log(3.0), 0.0], [0.0, 1.0]], dtype=torch.float64)
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert in_batch_kl(zeros, query, docs, teacher_temperature=1.0).item() == pytest.approx(
        expected
    )
    assert in_batch_kl(query @ docs.T, query, docs).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        (1, 0.75 * math.log(3.0) + 0.25 * math.log(2.0)),
        (0, 0.75 * math.log(2.0)),
    ],
)
def test_m3_kd_by_hand(others: int, expected: float) -> None:
    """All scores equal: the first target wins against its list and the rest, the last has less.

    Teacher (3/4, 1/4), one other document: 3/4 ln 3 + 1/4 ln 2. No other, as of a
    cross-encoder: 3/4 ln 2 + 1/4 ln 1, where an empty sum may turn to NaN.
    """
    scores = torch.zeros(1, 2 + others, dtype=torch.float64, requires_grad=True)
    candidates = torch.tensor([[True, True, False]])[:, : 2 + others]
    loss = m3_kd(
        scores[:, :2],
        TEACHER,
        torch.ones(1, 2, dtype=torch.bool),
        scores,
        candidates,
        torch.ones_like(candidates),
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_m3_kd_against_a_loop_of_cross_entropies() -> None:
    """A used target that stays among the negatives, and pushes the positive down again."""
    signals = batch(seed=2)
    mask, candidates = signals["mask"], signals["batch_candidates"]
    b, n = mask.shape
    signals["batch_mask"][2, 3] = False  # a document that may be relevant to query 2
    expected = []
    for row in range(b):
        logits = signals["batch_scores"][row] / 0.02
        teacher = (signals["teacher_scores"][row] / 0.5)[mask[row]].softmax(-1)
        allowed = signals["batch_mask"][row] | candidates[row]
        real = [row * n + position for position in range(n) if mask[row, position]]
        for weight, column in zip(teacher, real, strict=True):
            columns = allowed.nonzero()[:, 0]
            target = (columns == column).nonzero()[0]
            loss = torch.nn.functional.cross_entropy(logits[columns][None], target)
            expected.append(weight * loss)
            allowed[column] = False
    actual = m3_kd(
        *(
            signals[name]
            for name in (
                "student_scores",
                "teacher_scores",
                "mask",
                "batch_scores",
                "batch_candidates",
                "batch_mask",
            )
        ),
        teacher_temperature=0.5,
    )
    assert actual.item() == pytest.approx(torch.stack(expected).sum().item() / b)
