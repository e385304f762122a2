"""Losses over the documents of one query as a class: numbers by hand, and their neighbours."""

import math

import pytest
import torch
from fakes.batch import batch
from torch import Tensor
from torch.nn.functional import normalize

from retrodistill.objectives.losses.classes import class_mean_direction, inter_set
from retrodistill.objectives.losses.embedding import embed_distill


def rows(*vectors: tuple[float, float]) -> Tensor:
    return torch.tensor(vectors, dtype=torch.float64)


def test_class_mean_direction_by_hand() -> None:
    """The teacher's documents (2, 0) and (0, 2) have the mean direction (1, 1) / sqrt 2.

    (1, 0) is shorter than its teacher: 1 - 0.7071 / 2. (0, 4) is longer: 1 - 2.8284 / 4. The query
    (1, 1) is right. A third document, of no class, is not a member.
    """
    student = rows((1, 0), (0, 4), (9, 9))
    teacher = rows((2, 0), (0, 2), (5, 5))
    labels = torch.tensor([[True, True, False]])
    loss = class_mean_direction(rows((1, 1)), student, rows((1, 0)), teacher, labels)
    assert loss.item() == pytest.approx(((1 - 0.70711 / 2) + (1 - 0.70711)) / 3, abs=1e-5)


def test_a_class_of_several_documents_has_one_direction() -> None:
    """The direction of each document itself: embed-distill with a length, as `norm-and-direction`.

    With one document a query, and lengths of 1, the documents' half is that of embed-distill.
    """
    signals = batch()
    student, teacher = (
        normalize(signals[f"{side}_doc_vectors"]) for side in ("matched", "teacher")
    )
    nothing = torch.zeros(0, 3, dtype=torch.float64)
    labels = torch.eye(4, len(student), dtype=torch.bool)
    queries = normalize(teacher[:4])
    loss = class_mean_direction(queries, student, queries, teacher, labels)
    own = embed_distill(nothing, student[:4], nothing, teacher[:4])
    assert loss.item() == pytest.approx(own.item() / 2)
    labels[0, 4:7] = True
    together = class_mean_direction(queries, student, queries, teacher, labels)
    listed = torch.cat([student[:4], student[4:7]]), torch.cat([teacher[:4], teacher[4:7]])
    apart = embed_distill(nothing, listed[0], nothing, listed[1])
    assert together.item() != pytest.approx(apart.item() * 7 / 11, rel=1e-4)


def test_inter_set_by_hand() -> None:
    """Sets {(1, 0), (0, 1)} and {(3, 4)}: cosines 0.6 and 0.8. A document of no set is nothing.

    At T = 1 the mean of exp over both pairs is the same from either side.
    """
    docs = rows((1, 0), (0, 1), (3, 4), (5, 0))
    labels = torch.tensor([[True, True, False, False], [False, False, True, False]])
    mask = torch.ones_like(labels)
    expected = math.log((math.exp(0.6) + math.exp(0.8)) / 2)
    assert inter_set(docs, labels, mask, temperature=1.0).item() == pytest.approx(expected)


def test_a_document_of_two_sets_is_not_pushed_from_itself() -> None:
    """A document that is relevant to two queries, with the cosine 1 as a negative of its own."""
    docs = rows((1, 0), (0, 1))
    labels = torch.tensor([[True, False], [True, True]])
    mask = torch.ones_like(labels)
    loss = inter_set(docs, labels, mask, temperature=1.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-9)
