"""The contrast of sentences: numbers by hand, and what it must tell apart."""

import math

import pytest
import torch

from retrodistill.objectives.losses.spans import span_contrastive

TEACHER = torch.eye(3, dtype=torch.float64)


def test_span_contrastive_by_hand() -> None:
    """Cosines of 1 with the own sentence and 0 with the two others, at T = 1: ln(e + 2) - 1."""
    value = span_contrastive(4 * TEACHER, 2 * TEACHER, temperature=1.0)
    assert value.item() == pytest.approx(math.log(math.e + 2) - 1)


def test_parts_that_are_all_the_whole_text_cost_the_logarithm_of_their_number() -> None:
    """Embedding distillation by another name: each part has the vector of its text, and is near."""
    whole = TEACHER.mean(0).expand(3, 3)
    assert span_contrastive(whole, TEACHER).item() == pytest.approx(math.log(3))


def test_a_sentence_that_occurs_twice_is_no_negative() -> None:
    """Boilerplate that every document ends with, which no vector could tell apart from itself.

    The two copies have two negatives each, the two other sentences three.
    """
    twice = torch.cat([TEACHER, TEACHER[:1] + 1e-9])
    value = span_contrastive(twice, twice, temperature=0.05)
    costs = [math.log(1 + negatives * math.exp(-20)) for negatives in (2, 3, 3, 2)]
    assert value.item() == pytest.approx(sum(costs) / 4)


def test_a_batch_without_parts_costs_nothing() -> None:
    """The mean of no sentence, NaN, where all documents of a batch have one."""
    student = torch.zeros(0, 3, requires_grad=True)
    value = span_contrastive(student, torch.zeros(0, 3))
    value.backward()
    assert value.item() == 0.0
