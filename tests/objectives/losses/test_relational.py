"""Relations within a batch: numbers by hand, and references."""

import itertools

import numpy as np
import pytest
import torch
from fakes.batch import batch, value
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.relational import rkd_angle, rkd_distance

STUDENT = ("query_vectors", "doc_vectors")
TEACHER = ("teacher_query_vectors", "teacher_doc_vectors")
BOTH = pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])


def texts(*points: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return one query and the other texts as documents."""
    whole = torch.tensor(points, dtype=torch.float64)
    return whole[:1], whole[1:]


def huber(error: float) -> float:
    return error**2 / 2 if abs(error) <= 1 else abs(error) - 0.5


def test_rkd_distance_by_hand() -> None:
    """Student at 0, 1, 3 on a line: distances 1, 3, 2 over their mean 2 are 0.5, 1.5, 1.

    Teacher at 0, 1, 2 in a plane: 1, 2, 1 over 4/3 are 0.75, 1.5, 0.75. Errors of 1/4, 0, 1/4:
    (1/32 + 0 + 1/32) / 3 = 1/48.
    """
    student = texts((0.0,), (1.0,), (3.0,))
    teacher = texts((0.0, 5.0), (0.0, 6.0), (0.0, 7.0))
    assert rkd_distance(*student, *teacher).item() == pytest.approx(1 / 48)


def test_rkd_angle_by_hand() -> None:
    """Student an equilateral triangle, cosines 1/2; teacher on a line, cosines 1, -1, 1.

    Errors of 1/2, 3/2, 1/2: (1/8 + 1 + 1/8) / 3 = 5/12, the middle one on Huber's straight part.
    """
    student = texts((0.0, 0.0), (0.5, 0.75**0.5), (1.0, 0.0))
    teacher = texts((0.0,), (1.0,), (2.0,))
    assert rkd_angle(*student, *teacher).item() == pytest.approx(5 / 12)


def test_rkd_against_numpy() -> None:
    """A mean over all entries, the diagonal's zeros among them, which shrinks the loss."""
    signals = batch()
    student, teacher = (
        np.concatenate([signals[name].numpy() for name in names]) for names in (STUDENT, TEACHER)
    )
    pairs = list(itertools.combinations(range(len(student)), 2))
    relative = []
    for x in (student, teacher):
        distances = np.array([np.linalg.norm(x[i] - x[j]) for i, j in pairs])
        relative.append(distances / distances.mean())
    expected = np.mean([huber(s - t) for s, t in zip(*relative, strict=True)])
    assert value("rkd-distance", signals).item() == pytest.approx(expected)

    def cosine(x: np.ndarray, i: int, j: int, k: int) -> float:
        to_i, to_k = x[i] - x[j], x[k] - x[j]
        return to_i @ to_k / (np.linalg.norm(to_i) * np.linalg.norm(to_k))

    errors = [
        huber(cosine(student, i, j, k) - cosine(teacher, i, j, k))
        for i, k in pairs
        for j in range(len(student))
        if j not in (i, k)
    ]
    assert value("rkd-angle", signals).item() == pytest.approx(np.mean(errors))


@BOTH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 10.0), shift=st.floats(-5.0, 5.0))
def test_what_has_the_teachers_shape_has_no_loss(loss, seed, scale, shift) -> None:
    """A student of another dimension or scale that is punished for what rankings do not need."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    student = scale * pad(teacher, (0, 2)) @ turn + shift
    actual = loss(student[:2], student[2:], teacher[:2], teacher[2:])
    assert actual.item() == pytest.approx(0.0, abs=1e-12)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coinciding_vectors_have_finite_gradients(loss, dtype: torch.dtype) -> None:
    """The root's derivative at 0: one duplicated text turns every weight to NaN."""
    signals = batch(dtype=dtype)
    for prefix in ("", "teacher_"):
        signals[f"{prefix}doc_vectors"][1] = signals[f"{prefix}doc_vectors"][0]
    signals["doc_vectors"][3] = signals["query_vectors"][0]
    student = [signals[name].requires_grad_() for name in STUDENT]
    actual = loss(*student, *(signals[name] for name in TEACHER))
    actual.backward()
    assert actual.isfinite()
    assert all(leaf.grad.isfinite().all() and leaf.grad.abs().max() < 10 for leaf in student)


@BOTH
def test_a_collapsed_student_has_a_finite_gradient(loss) -> None:
    """All texts in one place: a mean distance of 0 that is divided by."""
    signals = batch()
    student = [torch.ones_like(signals[name]).requires_grad_() for name in STUDENT]
    actual = loss(*student, *(signals[name] for name in TEACHER))
    actual.backward()
    assert actual.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in student)


def test_duplicated_texts_have_no_angle() -> None:
    """Angles at a text's copy, cosine 0 by convention, taught as if they were right angles."""
    student = texts((0.0, 0.0), (0.5, 0.75**0.5), (1.0, 0.0))
    teacher = texts((0.0,), (1.0,), (2.0,))
    copied = [torch.cat([docs, docs[:1]]) for docs in (student[1], teacher[1])]
    actual = rkd_angle(student[0], copied[0], teacher[0], copied[1])
    # The triangle twice, once with each copy: the same mean.
    assert actual.item() == pytest.approx(5 / 12)


def test_angles_of_some_texts() -> None:
    """A limit on texts that takes the queries alone, or a draw that a resumed training lacks."""
    signals = batch(b=3, n=4)
    student, teacher = (
        torch.cat([signals[name] for name in names]) for names in (STUDENT, TEACHER)
    )
    chosen = [0, 3, 6, 9, 12]  # five of fifteen texts
    assert len(student) == 15
    whole = (signals[name] for name in (*STUDENT, *TEACHER))
    sampled = [side[chosen] for side in (student, teacher)]
    assert rkd_angle(*whole, texts=5).item() == pytest.approx(
        rkd_angle(sampled[0][:1], sampled[0][1:], sampled[1][:1], sampled[1][1:]).item()
    )


def test_rkd_angle_reports_invalid_settings() -> None:
    """The mean over no triple, NaN."""
    three, two = texts((0.0,), (1.0,), (2.0,)), texts((0.0,), (1.0,))
    with pytest.raises(ConfigError, match="at least 3"):
        rkd_angle(*three, *three, texts=2)
    assert rkd_angle(*two, *two).item() == 0
    assert rkd_angle(*three, *texts((0.0,), (1.0,), (1.0,))).item() == 0
