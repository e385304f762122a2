"""ELSA over users' interactions, by hand and against the plain reconstruction."""

import math

import pytest
import torch
from fakes.batch import batch, value

from retrodistill.objectives.losses.interactions import elsa

ROOT = math.sqrt(3) / 2
ITEMS = torch.tensor([[1.0, 0.0], [0.5, ROOT], [0.0, 1.0]], dtype=torch.float64)
"""Cosines: 0.5 between the first two, 0.866 between the last two, 0 between the others."""

USERS = torch.tensor([[True, True, False], [False, True, True]])


def test_elsa_by_hand() -> None:
    """The first user has [0.5, 0.5, 0.866], of cosine 1 / sqrt(2.5) with [1, 1, 0].

    The second has [0.5, 0.866, 0.866], of cosine sqrt(3) / sqrt(3.5); a user's loss is 2 - 2 cos.
    """
    losses = [2 - 2 / math.sqrt(2.5), 2 - 2 * math.sqrt(3 / 3.5)]
    assert elsa(ITEMS, USERS).item() == pytest.approx(sum(losses) / 2)
    assert elsa(7 * ITEMS, USERS).item() == pytest.approx(sum(losses) / 2)


def test_a_document_does_not_predict_itself() -> None:
    """The diagonal left in: orthogonal vectors, which know nothing, would have a loss of 0."""
    orthogonal = torch.eye(3, dtype=torch.float64)
    assert elsa(orthogonal, USERS).item() == pytest.approx(1.0)
    same_for_a_user = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert elsa(same_for_a_user, USERS[:1]).item() == pytest.approx(0.0)


def test_a_user_of_one_document_teaches_nothing() -> None:
    """A mean that most users of a sparse batch, of a constant loss, take part in."""
    single = torch.tensor([[False, False, True]])
    assert elsa(ITEMS, torch.cat([USERS, single])).item() == pytest.approx(
        elsa(ITEMS, USERS).item()
    )
    vectors = ITEMS.clone().requires_grad_()
    loss = elsa(vectors, single)
    loss.backward()
    assert loss.item() == 0.0
    assert vectors.grad is not None
    assert not vectors.grad.any()


def test_elsa_descends_to_the_users_groups() -> None:
    """A gradient of the wrong sign: documents chosen together end near each other."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(6, 4, generator=generator, dtype=torch.float64).requires_grad_()
    users = torch.zeros(4, 6, dtype=torch.bool)
    users[:2, :3] = users[2:, 3:] = True
    optimizer = torch.optim.Adam([vectors], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        elsa(vectors, users).backward()
        optimizer.step()
    docs = torch.nn.functional.normalize(vectors.detach(), dim=-1)
    cosines = docs @ docs.T
    assert cosines[:3, :3].min() > 0.9
    assert cosines[:3, 3:].max() < 0.3


def test_documents_that_another_query_brought_count() -> None:
    """Interactions of the drawn documents alone: a false zero for each of another user's draw."""
    signals = batch()
    whole = value("elsa", signals).item()
    signals["batch_relevant"] = signals["batch_candidates"]
    assert value("elsa", signals).item() != pytest.approx(whole)
