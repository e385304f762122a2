"""Losses over lists: numbers by hand, and references."""

import math

import numpy as np
import pytest
import torch
from fakes.batch import batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.listwise import (
    fused_kl,
    listwise_kl,
    one_vs_rest,
    sampled_kl,
    standardised_kl,
    top_k_kl,
)
from retrodistill.stages.training.sampling import importance

few = settings(max_examples=25, deadline=None)
scores = st.floats(-20, 20).map(lambda x: round(x, 3))


def row(*values: float) -> Tensor:
    """One list."""
    return torch.tensor([values], dtype=torch.float64)


def whole(of: Tensor) -> Tensor:
    """A mask without padding."""
    return torch.ones_like(of, dtype=torch.bool)


EVEN, THREE_TO_ONE, PAIR = row(0.0, 0.0), row(math.log(3.0), 0.0), whole(row(0.0, 0.0))
KL = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
"""KL([3/4, 1/4] || [1/2, 1/2]) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308 nats."""


def test_listwise_kl_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308 nats."""
    assert listwise_kl(EVEN, THREE_TO_ONE, PAIR).item() == pytest.approx(KL)
    cold = listwise_kl(EVEN, THREE_TO_ONE, PAIR, student_temperature=0.1)
    assert cold.item() == pytest.approx(KL)


def test_listwise_kl_against_torch() -> None:
    """A sign or a reduction that differs from the reference; a factor of T^2, 1/400 at 0.05."""
    signals = batch()
    student, teacher = signals["student_scores"], signals["teacher_scores"]
    expected = torch.nn.functional.kl_div(
        (student / 0.5).log_softmax(-1),
        (teacher / 2.0).log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )
    actual = listwise_kl(
        student, teacher, whole(student), student_temperature=0.5, teacher_temperature=2.0
    )
    assert actual.item() == pytest.approx(expected.item())


def test_top_k_kl_by_hand() -> None:
    """The best candidate twice, the other once.

    2 (3/4 ln(3/2) - 3/4 + 1/2) + (1/4 ln(1/2) - 1/4 + 1/2) = 0.1082 + 0.0767 = 0.1849.
    """
    expected = 2 * (0.75 * math.log(1.5) - 0.25) + (0.25 * math.log(0.5) + 0.25)
    actual = top_k_kl(EVEN, THREE_TO_ONE, PAIR, k=1)
    assert actual.item() == pytest.approx(expected)
    cold = top_k_kl(EVEN, THREE_TO_ONE, PAIR, k=1, student_temperature=0.1)
    assert cold.item() == pytest.approx(expected)


def test_top_k_kl_against_loops() -> None:
    """The student's top k taken for the teacher's, or padding counted among the k."""
    signals = batch()
    names = ("student_scores", "teacher_scores", "mask")
    student, teacher, mask = (signals[name].numpy() for name in names)
    expected = []
    for s, t, real in zip(student, teacher, mask, strict=True):
        p, q = np.exp(t[real] / 2.0), np.exp(s[real] / 0.5)
        p, q = p / p.sum(), q / q.sum()
        weights = np.where(np.isin(np.arange(len(p)), np.argsort(-p)[:2]), 3.0, 1.0)
        expected.append((weights * (p * np.log(p / q) - p + q)).sum())
    actual = top_k_kl(
        *(signals[name] for name in names),
        k=2,
        factor=3.0,
        student_temperature=0.5,
        teacher_temperature=2.0,
    )
    assert actual.item() == pytest.approx(np.mean(expected))


def test_top_k_kl_generalises_listwise_kl() -> None:
    """A weighting that changes the loss where it says that nothing is amplified."""
    signals = batch()
    lists = (signals["student_scores"], signals["teacher_scores"], signals["mask"])
    plain = listwise_kl(*lists).item()
    assert top_k_kl(*lists, factor=1.0).item() == pytest.approx(plain)
    assert top_k_kl(*lists, k=5, factor=3.0).item() == pytest.approx(3.0 * plain)


def test_top_k_kl_rests_at_the_teacher() -> None:
    """Weights on p ln(p / q) alone, whose minimum lies beside the teacher and below 0."""
    teacher = batch()["teacher_scores"]
    student = teacher.clone().requires_grad_()
    top_k_kl(student, teacher, whole(teacher), k=2, factor=5.0).backward()
    assert student.grad is not None
    assert student.grad.abs().max().item() < 1e-12


def test_top_k_kl_refuses_settings_without_meaning() -> None:
    """A negative factor, which rewards the student for missing the best."""
    with pytest.raises(ConfigError, match="k must be at least 1, but it is 0"):
        top_k_kl(EVEN, THREE_TO_ONE, PAIR, k=0)
    with pytest.raises(ConfigError, match=r"factor must be above 0, but it is -1\.0"):
        top_k_kl(EVEN, THREE_TO_ONE, PAIR, factor=-1.0)


def test_standardised_kl_by_hand() -> None:
    """Teacher 7, 5, 3 stands at z, 0, -z with z = (3/2)^0.5; the student's list is uniform.

    With e = exp(z) = 3.4034: ln 3 - ln(e + 1 + 1/e) + z (e - 1/e) / (e + 1 + 1/e) = 0.3624.
    """
    teacher = row(7.0, 5.0, 3.0)
    z = math.sqrt(1.5)
    total = math.exp(z) + 1 + math.exp(-z)
    expected = math.log(3.0 / total) + z * (math.exp(z) - math.exp(-z)) / total
    actual = standardised_kl(row(1.0, 1.0, 1.0), teacher, whole(teacher))
    assert actual.item() == pytest.approx(expected)
    assert expected == pytest.approx(0.3624, abs=1e-4)


def test_standardised_kl_against_numpy() -> None:
    """Moments that count the padding, or a deviation over n - 1."""
    signals = batch()
    names = ("student_scores", "teacher_scores", "mask")
    arrays = (signals[name].numpy() for name in names)
    expected = []
    for s, t, real in zip(*arrays, strict=True):
        p, q = (np.exp((x - x.mean()) / x.std() / 0.7) for x in (t[real], s[real]))
        p, q = p / p.sum(), q / q.sum()
        expected.append((p * np.log(p / q)).sum())
    actual = standardised_kl(
        *(signals[name] for name in names), student_temperature=0.7, teacher_temperature=0.7
    )
    assert actual.item() == pytest.approx(np.mean(expected))


@few
@given(st.lists(scores, min_size=3, max_size=8), st.floats(0.01, 100), scores)
def test_standardised_kl_is_zero_at_any_scale_of_the_teacher(
    values: list[float], scale: float, shift: float
) -> None:
    """Only one side standardised: the student is bound to the teacher's scale after all."""
    teacher = row(*values)
    actual = standardised_kl(scale * teacher + shift, teacher, whole(teacher))
    assert actual.item() == pytest.approx(0.0, abs=1e-6)


def test_standardised_kl_survives_equal_scores() -> None:
    """The gradient of a deviation of 0, NaN, at a fresh student that scores all alike."""
    student = row(2.0, 2.0, 2.0).requires_grad_()
    standardised_kl(student, row(3.0, 1.0, 0.0), whole(student)).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().max().item() > 0.0


def test_standardised_kl_skips_lists_of_two() -> None:
    """A mean that counts them: two standardised scores are 1 and -1, whatever they were."""
    student, teacher = torch.tensor([[[5.0, 2, 9], [1, 4, 3]], [[3.0, 1, 0], [4, 1, 7]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    alone = standardised_kl(student[1:], teacher[1:], mask[1:])
    assert standardised_kl(student, teacher, mask).item() == pytest.approx(alone.item())


@pytest.mark.parametrize("higher", [0, 1])
def test_standardised_kl_does_not_blow_up_rounding(higher: int) -> None:
    """Equal scores whose mean is rounded: a gradient of 5e7, and a step of that list alone."""
    student = torch.full((1, 8), 0.1)
    for _ in range(higher):
        student[0, 3] = torch.nextafter(student[0, 3], torch.tensor(1.0))
    student.requires_grad_()
    standardised_kl(student, torch.arange(8.0)[None], torch.ones(1, 8).bool()).backward()
    assert student.grad is not None
    assert 0 < student.grad.abs().max().item() < 1


def test_one_vs_rest_keeps_small_divergences() -> None:
    """A cross-entropy less an entropy: -1.3e-7 in float32 where 8.6e-8 is right."""
    student, teacher = torch.tensor([[-11.0]]), torch.tensor([[-11.1]])
    right = one_vs_rest(student.double(), teacher.double(), torch.ones(1, 1).bool()).item()
    actual = one_vs_rest(student, teacher, torch.ones(1, 1).bool()).item()
    assert actual == pytest.approx(right, rel=1e-3)


def test_sampled_kl_by_hand() -> None:
    """Weights 1 and 3: teacher 3:1 becomes (1/2, 1/2), student 1:1 becomes (1/4, 3/4).

    1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3) = 0.1438 nats.
    """
    weights = row(0.0, math.log(3.0))
    actual = sampled_kl(EVEN, THREE_TO_ONE, PAIR, weights)
    assert actual.item() == pytest.approx(0.5 * math.log(4.0 / 3.0))
    cold = sampled_kl(EVEN, THREE_TO_ONE, PAIR, weights, student_temperature=0.1)
    assert cold.item() == pytest.approx(0.5 * math.log(4.0 / 3.0))


@few
@given(
    st.lists(st.tuples(scores, scores, st.integers(1, 4)), min_size=2, max_size=6),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_a_candidate_stands_for_as_many_as_its_weight_says(
    drawn: list[tuple[float, float, int]], temperature: float
) -> None:
    """Weights on one side only, or divided by the temperature as if they were scores."""
    student, teacher, counts = (row(*column) for column in zip(*drawn, strict=True))
    repeats = counts[0].long()
    longer = [side.repeat_interleave(repeats, dim=1) for side in (student, teacher)]
    actual = sampled_kl(
        student, teacher, whole(student), counts.log(), student_temperature=temperature
    )
    expected = listwise_kl(*longer, whole(longer[0]), student_temperature=temperature)
    assert actual.item() == pytest.approx(expected.item(), abs=1e-9)


@few
@given(st.lists(st.tuples(scores, st.floats(0.1, 1.0)), min_size=1, max_size=6), scores)
def test_a_sampled_list_estimates_the_whole_lists_sum_without_bias(
    rest: list[tuple[float, float]], kept: float
) -> None:
    """A correction that leaves the softmax over a sample short of the list's tail.

    One candidate is always kept, one is drawn from the rest. With a teacher that is sure of the
    kept one, exp(loss + its score) is the student's sum of exponentials: over all draws, with
    their probabilities, its mean is that of the whole list.
    """
    chances = np.array([chance for _, chance in rest])
    chances /= chances.sum()
    mean = 0.0
    for (score, _), chance in zip(rest, chances, strict=True):
        loss = sampled_kl(row(kept, score), row(0.0, -1e4), PAIR, row(0.0, -math.log(chance)))
        mean += chance * math.exp(loss.item() + kept)
    whole_sum = math.exp(kept) + sum(math.exp(score) for score, _ in rest)
    assert mean == pytest.approx(whole_sum)


def test_sampled_kl_tends_to_the_whole_lists_kl() -> None:
    """Weights of a draw with replacement, where the draw is without; or a loss without weights.

    A batch of draws from one list has the mean of their losses: it comes near to the loss of the
    whole list as the samples grow, and nearer than without the weights.
    """
    generator = np.random.default_rng(0)
    teacher = np.sort(generator.normal(size=60) * 2)[::-1].copy()
    student = 0.5 * teacher + generator.normal(size=60)
    expected = listwise_kl(row(*student), row(*teacher), whole(row(*student))).item()
    biases = []
    for count in (6, 12, 24, 48):
        drawn = [importance(teacher, 0.0, count, generator) for _ in range(600)]
        positions, weights = (
            torch.from_numpy(np.array(column)) for column in zip(*drawn, strict=True)
        )
        sample = torch.from_numpy(student)[positions], torch.from_numpy(teacher)[positions]
        biases.append(sampled_kl(*sample, whole(positions), weights).item() - expected)
    assert sorted(np.abs(biases), reverse=True) == pytest.approx(np.abs(biases))
    assert abs(biases[-1]) < 0.005 * expected
    unweighted = listwise_kl(*sample, whole(positions)).item()
    assert abs(unweighted - expected) > 5 * abs(biases[-1])


@pytest.mark.parametrize(
    ("labelled", "expected"),
    [
        ((True, False), 0.75 * KL + 0.25 * math.log(2.0)),
        ((False, True), 0.25 * KL + 0.75 * math.log(2.0)),
        ((True, True), KL),
        ((False, False), KL),
    ],
)
def test_fused_kl_by_hand(labelled: tuple[bool, bool], expected: float) -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): a KL + (1 - a) ln 2, a the labelled share.

    A query without labels that has a = 0 and a cross-entropy of nothing learns nothing.
    """
    actual = fused_kl(EVEN, THREE_TO_ONE, PAIR, torch.tensor([labelled]), PAIR)
    assert actual.item() == pytest.approx(expected)


def test_doubtful_candidates_are_no_negatives_of_the_labels_in_fused_kl() -> None:
    """A likely false negative pushed away by the labels; the teacher still speaks of it."""
    labels, sure = torch.tensor([[True, False]]), torch.tensor([[True, False]])
    actual = fused_kl(EVEN, THREE_TO_ONE, PAIR, labels, sure)
    assert actual.item() == pytest.approx(0.75 * KL)


def test_fused_kl_against_torch() -> None:
    """Several positives whose cross-entropies are summed, so that they outweigh the teacher."""
    signals = batch()
    student, teacher = signals["student_scores"] / 0.5, signals["teacher_scores"] / 2.0
    labels = signals["labels"].clone()
    labels[1] = torch.tensor([True, False, True, False, True])
    labels[2] = False
    expected = []
    for s, t, real, label in zip(student, teacher, signals["mask"], labels, strict=True):
        s, t, label = s[real], t[real].softmax(-1), label[real]
        kl = torch.nn.functional.kl_div(s.log_softmax(-1), t, reduction="sum")
        if not label.any():
            expected.append(kl)
            continue
        target = label / label.sum()
        ce = torch.nn.functional.cross_entropy(s, target.double())
        expected.append(t[label].sum() * kl + t[~label].sum() * ce)
    actual = fused_kl(
        signals["student_scores"],
        signals["teacher_scores"],
        signals["mask"],
        labels,
        signals["mask"],
        student_temperature=0.5,
        teacher_temperature=2.0,
    )
    assert actual.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)


def test_one_vs_rest_by_hand() -> None:
    """Relevant with 3/4 by the teacher, with 1/2 by the student: 0.1308 nats; the other, 0."""
    assert one_vs_rest(EVEN, THREE_TO_ONE, PAIR).item() == pytest.approx(KL / 2)
    cold = one_vs_rest(EVEN, THREE_TO_ONE / 10, PAIR, teacher_temperature=0.1)
    assert cold.item() == pytest.approx(KL / 2)


def test_one_vs_rest_against_torch() -> None:
    """A cross-entropy without the teacher's entropy, which is not 0 at the teacher."""
    signals = batch()
    mask = signals["mask"]
    student, teacher = (
        torch.distributions.Bernoulli(logits=signals[name][mask] / temperature)
        for name, temperature in (("student_scores", 0.5), ("teacher_scores", 2.0))
    )
    expected = torch.distributions.kl_divergence(teacher, student).mean()
    actual = one_vs_rest(
        signals["student_scores"],
        signals["teacher_scores"],
        mask,
        student_temperature=0.5,
        teacher_temperature=2.0,
    )
    assert actual.item() == pytest.approx(expected.item())


def test_one_vs_rest_stays_finite_at_certainty() -> None:
    """0 ln 0 = NaN in float32, where a logit of 20 is a probability of 1."""
    student = torch.tensor([[-300.0, 0.0, 300.0]], requires_grad=True)
    loss = one_vs_rest(student, torch.tensor([[300.0, -300.0, 300.0]]), whole(student))
    loss.backward()
    assert loss.item() == pytest.approx((300.0 + math.log(2.0)) / 3)
    assert student.grad is not None
    assert student.grad.isfinite().all()
