"""Losses on vectors: numbers by hand, and references."""

import math

import numpy as np
import pytest
import torch
from fakes.batch import batch, value
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from retrodistill.objectives.losses.embedding import ckd, embed_distill, leaf, norm_and_direction

NAMES = (
    "matched_query_vectors",
    "matched_doc_vectors",
    "teacher_query_vectors",
    "teacher_doc_vectors",
)
NO_QUEUE = torch.empty(0, 2, dtype=torch.float64)


def one(x: float, y: float) -> Tensor:
    return torch.tensor([[x, y]], dtype=torch.float64)


def test_embed_distill_by_hand() -> None:
    """A query at 90 degrees costs 1, a document at 0 degrees nothing, whatever its length: 1/2."""
    loss = embed_distill(one(1, 0), one(0, 2), one(0, 1), one(0, 1))
    assert loss.item() == pytest.approx(0.5)


def test_embed_distill_against_sentence_transformers() -> None:
    """Queries and documents that do not count alike."""
    student, teacher = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    reference = EmbedDistillLoss(torch.nn.Identity(), distance_metric="cosine")
    expected = reference.compute_loss_from_embeddings(list(student), list(teacher))
    assert embed_distill(*student, *teacher).item() == pytest.approx(expected.item(), rel=1e-5)


def test_leaf_by_hand() -> None:
    """A query off by (3, 4): 25. A document off by (0, 1): 1. Mean 13: squared, and summed."""
    assert leaf(one(3, 4), one(0, 1), one(0, 0), one(0, 2)).item() == 13.0


def test_leaf_against_torch() -> None:
    """The mean over dimensions, at which the loss of wide vectors shrinks to nothing."""
    signals = batch()
    student = torch.cat([signals[name] for name in NAMES[:2]])
    teacher = torch.cat([signals[name] for name in NAMES[2:]])
    expected = 3 * mse_loss(student, teacher)
    assert value("leaf", signals).item() == pytest.approx(expected.item())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_leaf_of_unit_vectors_is_twice_one_less_the_cosine(seed: int) -> None:
    """|a - b|^2 = 2 - 2 cos: two losses of one module in different units."""
    units = [normalize(batch(seed)[name], dim=-1) for name in NAMES]
    assert leaf(*units).item() == pytest.approx(2 * embed_distill(*units).item())


def test_ckd_by_hand() -> None:
    """Student = teacher: a query (1, 0), a document (0, 1); the queue holds (-1, 0); T = 1.

    The query meets cosines 1, 0, -1: ln(e + 1 + 1/e) - 1 = 0.4076. The document meets 0, 1, 0:
    ln(1 + e + 1) - 1 = 0.5514. Lengths do not count.
    """
    query, doc = one(2, 0), one(0, 5)
    loss = ckd(query, doc, one(1, 0), one(0, 1), one(-3, 0), temperature=1.0)
    query_term, doc_term = math.log(math.e + 1 + 1 / math.e) - 1, math.log(math.e + 2) - 1
    assert loss.item() == pytest.approx((query_term + doc_term) / 2)


def test_ckd_against_numpy() -> None:
    """Positives shifted by a row, queries to documents: every text learns its neighbour."""
    signals = batch()
    student = np.concatenate([normalize(signals[name], dim=-1) for name in NAMES[:2]])
    keys = np.concatenate(
        [normalize(signals[name], dim=-1) for name in (*NAMES[2:], "queue_vectors")]
    )
    terms = []
    for position, vector in enumerate(student):
        logits = [vector @ key / 0.05 for key in keys]
        terms.append(np.logaddexp.reduce(logits) - logits[position])
    assert value("ckd", signals).item() == pytest.approx(np.mean(terms))


def test_ckd_without_a_queue() -> None:
    """A first batch, whose queue is still empty; at the teacher, two texts apart cost nothing."""
    loss = ckd(one(1, 0), one(0, 1), one(1, 0), one(0, 1), NO_QUEUE)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-20.0)))


def test_the_cost_of_a_duplicate_in_the_queue() -> None:
    """A docstring that promises ln 2 for a text that the queue holds as well."""
    loss = ckd(one(1, 0), one(0, 1), one(1, 0), one(0, 1), torch.eye(2, dtype=torch.float64))
    assert loss.item() == pytest.approx(math.log(2.0), rel=1e-6)


def test_norm_and_direction_by_hand() -> None:
    """A query of the right direction and thrice the length: 2^2. A document at 90 degrees: 1.

    With a weight of 0.5 for lengths, (0.5 * 4 + 1) / 2 = 1.5.
    """
    vectors = one(6, 0), one(0, 1), one(2, 0), one(1, 0)
    assert norm_and_direction(*vectors).item() == pytest.approx(2.5)
    assert norm_and_direction(*vectors, norm_weight=0.5).item() == pytest.approx(1.5)
    assert norm_and_direction(*vectors, norm_weight=0.0).item() == pytest.approx(
        embed_distill(*vectors).item()
    )


def test_norm_and_direction_of_unit_vectors_is_embed_distill() -> None:
    """A docstring that promises another method where no vector's length can differ."""
    signals = batch()
    vectors = [signals[name] for name in NAMES]
    units = [each / each.norm(dim=-1, keepdim=True) for each in vectors]
    same = embed_distill(*vectors).item()
    assert norm_and_direction(*units).item() == pytest.approx(same)
    assert norm_and_direction(*vectors).item() > same + 0.01


def test_norm_and_direction_against_numpy() -> None:
    """A difference of norms in the student's units, which grows without bound as it shrinks."""
    signals = batch()
    student, teacher = (
        np.concatenate([signals[name].numpy() for name in names])
        for names in (NAMES[:2], NAMES[2:])
    )
    terms = []
    for s, t in zip(student, teacher, strict=True):
        length, norm = np.sqrt((s**2).sum()), np.sqrt((t**2).sum())
        terms.append(1 - s @ t / (length * norm) + (length / norm - 1) ** 2)
    assert value("norm-and-direction", signals).item() == pytest.approx(np.mean(terms))


@pytest.mark.parametrize("name", ["embed-distill", "leaf", "ckd", "norm-and-direction"])
def test_vectors_of_zeros_have_finite_gradients(name: str) -> None:
    """An empty text, whose vector is 0: the gradient of a norm there is NaN."""
    signals = batch()
    for prefix in ("matched", "teacher"):
        signals[f"{prefix}_doc_vectors"][0] = 0.0
    leaves = [signals[leaf].requires_grad_() for leaf in NAMES[:2]]
    loss = value(name, signals)
    loss.backward()
    assert loss.isfinite()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
