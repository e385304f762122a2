"""Every loss: a number by hand, a reference, its gradient, and blindness to padding."""

import math

import numpy as np
import pytest
import torch

from retrodistill.errors import DataError
from retrodistill.losses.contrastive import contrastive
from retrodistill.losses.embedding import embed_distill
from retrodistill.losses.listwise import in_batch_kl, listwise_kl, listwise_kl_in_batch
from retrodistill.losses.pairwise import margin_mse
from retrodistill.objective import Signals, bind, parse_objective
from retrodistill.registry import LOSSES

DISTILLING = {"margin-mse", "listwise-kl"}
"""Losses that are 0 where the student's scores are the teacher's."""

UNMASKED = {"embed-distill", "in-batch-kl"}
"""Losses that compare whole batches: no list, so no padding."""


def batch(seed: int = 0, b: int = 4, n: int = 5, dtype: torch.dtype = torch.float64) -> Signals:
    """Return all signals of a batch whose lists have a hole in the middle and one at the end.

    Columns of `batch_scores` are all candidates of all queries, so M = B * N.
    """
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, b, n, generator=generator, dtype=dtype)
    mask = torch.ones(b, n, dtype=torch.bool)
    mask[:, -1] = False
    mask[0, 2] = False
    labels = torch.zeros(b, n, dtype=torch.bool)
    labels[:, 0] = True
    scores = torch.randn(b, b * n, generator=generator, dtype=dtype)
    batch_mask = mask.reshape(1, -1).repeat(b, 1)
    batch_labels = torch.zeros(b, b * n, dtype=torch.bool)
    for row in range(b):
        scores[row, row * n : (row + 1) * n] = student[row]
        batch_labels[row, row * n] = True
    shapes = {"query_vectors": b, "doc_vectors": b * n}
    vectors = {
        prefix + name: torch.randn(size, 3, generator=generator, dtype=dtype)
        for name, size in shapes.items()
        for prefix in ("", "teacher_")
    }
    return Signals(
        student_scores=student,
        teacher_scores=teacher,
        mask=mask,
        labels=labels,
        batch_scores=scores,
        batch_labels=batch_labels,
        batch_mask=batch_mask,
        **vectors,
    )


def value(name: str, signals: Signals) -> torch.Tensor:
    return bind(parse_objective(name))(signals)[name]


def test_margin_mse_by_hand() -> None:
    """Student margins 2-1=1 and 2-0=2; teacher margins 5-1=4 and 5-2=3: (9 + 1) / 2 = 5."""
    student = torch.tensor([[2.0, 1.0, 0.0]])
    teacher = torch.tensor([[5.0, 1.0, 2.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert margin_mse(student, teacher, mask).item() == 5.0
    # Temperatures divide: margins 10 and 20 against 2 and 1.5.
    halved = margin_mse(student, teacher, mask, student_temperature=0.1, teacher_temperature=2.0)
    assert halved.item() == pytest.approx((8.0**2 + 18.5**2) / 2, rel=1e-5)


def test_listwise_kl_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308 nats."""
    student = torch.zeros(1, 2, dtype=torch.float64)
    teacher = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert listwise_kl(student, teacher, mask).item() == pytest.approx(expected)
    cold = listwise_kl(student, teacher, mask, student_temperature=0.1)
    assert cold.item() == pytest.approx(0.01 * expected)
    plain = listwise_kl(student, teacher, mask, student_temperature=0.1, squared=False)
    assert plain.item() == pytest.approx(expected)


def test_listwise_kl_in_batch_by_hand() -> None:
    """Teacher (1/2, 1/2) on two of four equal documents, student 1/4 each: KL = ln 2."""
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    loss = listwise_kl_in_batch(
        zeros,
        zeros,
        torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(1, 4, dtype=torch.float64),
        torch.ones(1, 4, dtype=torch.bool),
        student_temperature=1.0,
    )
    assert loss.item() == pytest.approx(math.log(2.0))


def test_contrastive_by_hand() -> None:
    """Positive at 1, one negative at 0, T = 0.5: ln(1 + exp(-2)) = 0.1269 nats."""
    scores = torch.tensor([[1.0, 0.0, 9.0]], dtype=torch.float64)
    labels = torch.tensor([[True, False, False]])
    mask = torch.tensor([[True, True, False]])
    loss = contrastive(scores, labels, mask, temperature=0.5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2.0)))


def test_contrastive_does_not_push_positives_apart() -> None:
    """A second positive taken for a negative: two equal positives would cost ln 2 each."""
    scores = torch.tensor([[5.0, 5.0, -5.0]], dtype=torch.float64)
    labels = torch.tensor([[True, True, False]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert contrastive(scores, labels, mask, temperature=1.0).item() < 1e-4


@pytest.mark.parametrize("name", sorted(DISTILLING))
def test_a_distilling_loss_is_zero_at_the_teacher(name: str) -> None:
    """A KL that is 1.71 at equality: probabilities passed where log-probabilities belong."""
    signals = batch()
    signals["student_scores"] = signals["teacher_scores"]
    assert value(name, signals).item() == pytest.approx(0.0, abs=1e-12)
    signals["student_scores"] = signals["teacher_scores"] + 0.3
    assert value(name, signals).item() == pytest.approx(0.0, abs=1e-12)


def test_every_distilling_loss_is_known_here() -> None:
    """A new loss in the registry that escapes the contracts of this file."""
    assert set(LOSSES) - DISTILLING == {
        "contrastive",
        "embed-distill",
        "in-batch-kl",
        "listwise-kl-in-batch",
    }


def test_in_batch_kl_is_zero_where_the_rest_of_the_batch_gets_nothing() -> None:
    """A soft in-batch loss whose minimum is not the teacher's distribution."""
    teacher = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rest = torch.full((3, 2), -1e6, dtype=torch.float64)
    mask = torch.ones(3, 4, dtype=torch.bool)
    loss = listwise_kl_in_batch(
        teacher * 0.05,
        teacher,
        mask,
        torch.cat([teacher * 0.05, rest], dim=1),
        torch.ones(3, 6, dtype=torch.bool),
    )
    assert loss.item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - UNMASKED))
def test_every_loss_ignores_padding(name: str) -> None:
    """A padded score that leaks in trains the student on nothing, at a plausible-looking loss."""
    signals = batch()
    before = value(name, signals)
    signals["student_scores"][~signals["mask"]] = 1e3
    signals["teacher_scores"][~signals["mask"]] = -1e3
    signals["batch_scores"][~signals["batch_mask"]] = 1e3
    assert value(name, signals).item() == before.item()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_finite_and_right_gradient(name: str) -> None:
    """NaN from a masked -inf, which turns all weights to NaN at the first step."""
    signals = batch(b=3, n=4)
    names = ("student_scores", "batch_scores", "query_vectors", "doc_vectors")
    leaves = tuple(signals[signal].clone().requires_grad_() for signal in names)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return value(name, Signals(**{**signals, **dict(zip(names, tensors, strict=True))}))

    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - UNMASKED))
def test_every_loss_survives_rows_without_a_list(name: str) -> None:
    """One fully masked query of a batch that makes the whole loss, or its gradient, NaN."""
    signals = batch()
    signals["mask"][1] = False
    signals["batch_mask"][1] = False
    signals["mask"][2, 1:] = False
    leaves = [signals["student_scores"].requires_grad_(), signals["batch_scores"].requires_grad_()]
    loss = value(name, signals)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - UNMASKED))
def test_every_loss_refuses_a_batch_without_signal(name: str) -> None:
    """The mean of nothing, NaN, reported as the loss of a step."""
    signals = batch()
    signals["mask"][:] = False
    signals["batch_mask"][:] = False
    with pytest.raises(DataError, match="at least one query"):
        value(name, signals)


@pytest.mark.parametrize("name", sorted(DISTILLING))
def test_the_size_of_a_loss_does_not_depend_on_list_length(name: str) -> None:
    """An elementwise mean, whose loss shrinks as lists grow by padding."""
    short = batch(n=5)
    long = batch(n=5)
    pad = torch.zeros(4, 20, dtype=torch.float64)
    for signal in ("student_scores", "teacher_scores"):
        long[signal] = torch.cat([long[signal], pad], dim=1)
    for signal in ("mask", "labels"):
        long[signal] = torch.cat([long[signal], pad.bool()], dim=1)
    assert value(name, long).item() == pytest.approx(value(name, short).item())


def test_listwise_kl_against_torch() -> None:
    """A sign or a reduction that differs from the reference."""
    signals = batch()
    student, teacher = signals["student_scores"], signals["teacher_scores"]
    expected = torch.nn.functional.kl_div(
        (student / 0.5).log_softmax(-1),
        (teacher / 2.0).log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )
    found = listwise_kl(
        student,
        teacher,
        torch.ones_like(student, dtype=torch.bool),
        student_temperature=0.5,
        teacher_temperature=2.0,
    )
    assert found.item() == pytest.approx(0.25 * expected.item())


def test_in_batch_losses_against_numpy() -> None:
    """A denominator that runs over the wrong documents."""
    signals = batch()
    scores, mask = signals["batch_scores"].numpy(), signals["batch_mask"].numpy()
    labels = signals["batch_labels"].numpy()
    own = signals["mask"].numpy()
    student, teacher = signals["student_scores"].numpy(), signals["teacher_scores"].numpy()
    nce, kl = [], []
    for row in range(len(scores)):
        logits = scores[row] / 0.05
        negatives = logits[mask[row] & ~labels[row]]
        positive = logits[labels[row] & mask[row]][0]
        nce.append(-positive + np.logaddexp.reduce([positive, *negatives]))
        p = np.exp(teacher[row][own[row]])
        p /= p.sum()
        total = np.logaddexp.reduce(logits[mask[row]])
        kl.append((p * (np.log(p) - (student[row][own[row]] / 0.05 - total))).sum())
    assert value("contrastive", signals).item() == pytest.approx(np.mean(nce))
    assert value("listwise-kl-in-batch", signals).item() == pytest.approx(np.mean(kl))


def test_embed_distill_by_hand() -> None:
    """A query at 90 degrees costs 1, a document at 0 degrees nothing, whatever its length: 1/2."""
    loss = embed_distill(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[0.0, 2.0]]),
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([[0.0, 1.0]]),
    )
    assert loss.item() == pytest.approx(0.5)


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


def test_a_teacher_of_one_column_is_refused() -> None:
    """A teacher of shape (B, 1) broadcast against (B, N) without a word."""
    with pytest.raises(DataError, match=r"teacher_scores has N = 1, but student_scores has N = 3"):
        Signals(student_scores=torch.zeros(2, 3), teacher_scores=torch.zeros(2, 1))
    with pytest.raises(DataError, match=r"must have shape \(B, N\)"):
        Signals(student_scores=torch.zeros(2))
