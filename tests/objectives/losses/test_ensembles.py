"""Losses from several teachers: numbers by hand, and what they would silently become."""

import math

import pytest
import torch
from fakes.batch import batch
from torch import Tensor

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.ensembles import agreement_weighted_kl, confidence_weighted_kl
from retrodistill.objectives.losses.listwise import listwise_kl
from retrodistill.objectives.objective import bind, parse_objective

FOUND = torch.tensor([[True, False]])
BOTH = torch.ones(1, 2, dtype=torch.bool)


def odds(*probabilities: float) -> Tensor:
    """Scores (K, 1, 2) of teachers that give the first of two candidates these probabilities."""
    logits = [[[math.log(p / (1 - p)), 0.0]] for p in probabilities]
    return torch.tensor(logits, dtype=torch.float64)


def mixture_kl(first: float) -> float:
    """Return KL([p, 1 - p] || [1/2, 1/2])."""
    return math.log(2) + first * math.log(first) + (1 - first) * math.log(1 - first)


def test_confidence_weighted_kl_by_hand() -> None:
    """Teachers 1/2 and 9/10: entropies 0.6931 and 0.3251, weights 0.3193 and 0.6807.

    The mixture is 0.7723, and its KL from a student of equal scores 0.1567.
    """
    unsure, sure = math.log(2), -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    weight = 1 - sure / (unsure + sure)
    assert weight == pytest.approx(0.6807, abs=1e-4)
    student = torch.zeros(1, 2, dtype=torch.float64)
    loss = confidence_weighted_kl(student, odds(0.5, 0.9), BOTH)
    assert loss.item() == pytest.approx(mixture_kl((1 - weight) * 0.5 + weight * 0.9))
    assert loss.item() == pytest.approx(0.1567, abs=1e-4)


def test_agreement_weighted_kl_by_hand() -> None:
    """Teachers give the labelled candidate 1/5 and 4/5: costs ln 5 and ln 5/4, weights 1/5, 4/5.

    exp(c) is 5 and 5/4, so the parts are 4/5 and 1/5. Mixture 1/25 + 16/25 = 17/25. Both
    teachers are equally sure, so by confidence the weights would be even.
    """
    student = torch.zeros(1, 2, dtype=torch.float64)
    loss = agreement_weighted_kl(student, odds(0.2, 0.8), BOTH, FOUND)
    assert loss.item() == pytest.approx(mixture_kl(17 / 25))
    even = confidence_weighted_kl(student, odds(0.2, 0.8), BOTH)
    assert even.item() == pytest.approx(mixture_kl(0.5), abs=1e-9)


def test_a_query_without_a_label_learns_from_all_teachers_evenly() -> None:
    """Weights from an empty sum, or a query that teaches nothing without a word."""
    student = torch.zeros(1, 2, dtype=torch.float64)
    loss = agreement_weighted_kl(student, odds(0.2, 0.9), BOTH, ~BOTH)
    assert loss.item() == pytest.approx(mixture_kl(0.55))


def test_wholly_sure_teachers_and_a_single_one_have_weights() -> None:
    """0 / 0: NaN as the weight where all entropies are 0, or where K - 1 is 0."""
    student = torch.zeros(1, 2, dtype=torch.float64)
    sure = torch.tensor([[[900.0, 0.0]], [[0.0, 900.0]]], dtype=torch.float64)
    assert confidence_weighted_kl(student, sure, BOTH).item() == pytest.approx(0, abs=1e-9)
    signals = batch()
    one, mask = signals["teachers"][:1], signals["mask"]
    expected = listwise_kl(signals["student_scores"], one[0], mask).item()
    for loss in (
        confidence_weighted_kl(signals["student_scores"], one, mask),
        agreement_weighted_kl(signals["student_scores"], one, mask, signals["labels"]),
    ):
        assert loss.item() == pytest.approx(expected)


def test_the_gradient_is_that_of_weighted_terms_and_differs_from_fixed_weights() -> None:
    """Weights that do nothing: a plain sum of teachers, or the scores averaged before."""
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    scores = odds(0.5, 0.9)

    def slope(loss: Tensor) -> float:
        (gradient,) = torch.autograd.grad(loss, student)
        return gradient[0, 0].item()

    actual = slope(confidence_weighted_kl(student, scores, BOTH))
    each = [slope(listwise_kl(student, teacher, BOTH)) for teacher in scores]
    weight = 1 - 0.32508 / (math.log(2) + 0.32508)
    assert actual == pytest.approx((1 - weight) * each[0] + weight * each[1], rel=1e-4)
    assert actual != pytest.approx(sum(each) / 2, rel=0.05)
    assert actual != pytest.approx(slope(listwise_kl(student, scores.mean(0), BOTH)), rel=0.05)


def test_a_term_names_its_teachers_and_their_temperatures() -> None:
    """A bi-encoder's cosines and logits under one temperature: one list flat, the other one-hot."""
    signals = batch()
    signals["bi.scores"] = signals["teachers"][1]
    (term,) = parse_objective(
        "0.5*confidence-weighted-kl(teachers=teacher_scores/2&bi.scores/0.05)"
    )
    assert set(term.signals) == {"student_scores", "teacher_scores", "bi.scores", "mask"}
    named = bind([term])(signals)["confidence-weighted-kl"].item()
    teachers = torch.stack([signals["teacher_scores"] / 2, signals["bi.scores"] / 0.05])
    loss = confidence_weighted_kl(signals["student_scores"], teachers, signals["mask"])
    assert named == pytest.approx(0.5 * loss.item())


@pytest.mark.parametrize(
    "teachers",
    [
        "ce",
        "teacher_scores&teacher_scores",
        "teacher_scores/0",
        "ce.scores/x",
        "ce.batch_scores",
        "student.scores",
    ],
)
def test_teachers_that_are_not_understood_are_refused(teachers: str) -> None:
    """A teacher that counts twice, or a divisor of 0."""
    with pytest.raises(ConfigError, match="confidence-weighted-kl: "):
        parse_objective(f"confidence-weighted-kl(teachers={teachers})")
