"""Margins without a teacher: numbers by hand, and a reference."""

import itertools

import numpy as np
import pytest
import torch
from fakes.batch import batch
from torch.nn.functional import normalize

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.margins import arm, triplet

NAMES = ("query_vectors", "doc_vectors", "batch_candidates", "batch_labels", "batch_mask")

QUERIES = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
DOCS = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
OWN = torch.tensor([[True, True, False], [False, False, True]])
LABELS = torch.tensor([[True, False, False], [False, False, True]])
MASK = torch.ones(2, 3, dtype=torch.bool)


def by_hand(target: str, *, in_batch: bool) -> float:
    """Return the loss of two queries along the axes, lengths as they come.

    q1 and its positive lie on x; its negative, q2 and its positive lie on y.
    """
    return arm(QUERIES, DOCS, OWN, LABELS, MASK, target=target, in_batch=in_batch).item()


def test_arm_with_own_negatives_by_hand() -> None:
    """The only own negative is q1's, at 90 degrees: margin 1, target (1 + 0)/2, error 1/4.

    The static target of 0.6 gives 0.16. Distributed, the negative is also held against q2's
    positive, which it equals: target 1, error 0, so the mean is 1/8.
    """
    assert by_hand("adaptive", in_batch=False) == pytest.approx(0.25)
    assert by_hand("static", in_batch=False) == pytest.approx(0.16)
    assert by_hand("distributed", in_batch=False) == pytest.approx(0.125)


def test_arm_in_the_batch_by_hand() -> None:
    """q1 against n and p2: margin 1, target 1/2, 1/4 each. q2 against p1: the same, 1/4.

    And q2 against q1's negative, which equals its own positive: margin 0, target 1, error 1.
    """
    assert by_hand("adaptive", in_batch=True) == pytest.approx((3 * 0.25 + 1) / 4)


@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize("target", ["static", "adaptive", "distributed"])
def test_arm_against_numpy(target: str, in_batch: bool) -> None:
    """The margin of one query's positive and another query's negative, as broadcasting has it."""
    signals = batch()
    signals["batch_labels"][0, 1] = True
    queries, docs = (normalize(signals[name], dim=-1).numpy() for name in NAMES[:2])
    candidates, labels, mask = (signals[name].numpy() for name in NAMES[2:])
    positives = np.argwhere(labels & mask)
    errors = []
    for (i, p), n in itertools.product(positives, range(len(docs))):
        if mask[i, n] and not labels[i, n] and (in_batch or candidates[i, n]):
            margin = queries[i] @ docs[p] - queries[i] @ docs[n]
            targets = {
                "static": [0.4],
                "adaptive": [(1 + docs[p] @ docs[n]) / 2],
                "distributed": [(1 + docs[k] @ docs[n]) / 2 for _, k in positives],
            }[target]
            errors.append(np.mean([(margin - goal) ** 2 for goal in targets]))
    actual = arm(*(signals[name] for name in NAMES), target=target, margin=0.4, in_batch=in_batch)
    assert actual.item() == pytest.approx(np.mean(errors))


@pytest.mark.parametrize("target", ["static", "distributed"])
def test_the_other_targets_have_right_gradients(target: str) -> None:
    """A target held fixed in one form and not in the others; the contracts see the default."""
    signals = batch(b=3, n=3)
    leaves = tuple(signals[name].requires_grad_() for name in NAMES[:2])
    fixed = [signals[name] for name in NAMES[2:]]
    assert torch.autograd.gradcheck(lambda *both: arm(*both, *fixed, target=target), leaves)


def test_arm_reports_invalid_settings() -> None:
    """A misspelt target that trains with the default; a positive alone, whose mean is NaN."""
    with pytest.raises(ConfigError, match="static, adaptive, distributed, not 'adaptve'"):
        by_hand("adaptve", in_batch=True)
    for target in ("static", "adaptive", "distributed"):
        assert arm(QUERIES, DOCS, OWN, LABELS, LABELS, target=target).item() == 0
        assert arm(QUERIES, DOCS, OWN, LABELS & False, OWN, target=target).item() == 0


def test_triplet_by_hand() -> None:
    """At distance 1 from the positive and 1.5 from the negative: 1 + 1 - 1.5 = 0.5; 3 is far."""
    query, docs = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.5], [3.0, 0.0]])
    listed = torch.tensor([[True, True, False]])
    labels = torch.tensor([[True, False, False]])
    kept = torch.ones(1, 3, dtype=torch.bool)
    assert triplet(query, docs, listed, labels, kept).item() == pytest.approx(0.5)
    assert triplet(query, docs, kept, labels, kept).item() == pytest.approx(0.25)
    assert triplet(query, docs, listed, labels, kept, margin=0.25).item() == 0.0


def test_triplet_has_the_queries_own_negatives_alone() -> None:
    """A document of another query as a negative: InfoNCE's part, in which it is one already."""
    signals = batch()
    names = ("query_vectors", "doc_vectors", "batch_candidates", "batch_labels", "batch_mask")
    before = triplet(*(signals[name] for name in names))
    others = ~signals["batch_candidates"]
    signals["batch_mask"] &= ~others
    assert triplet(*(signals[name] for name in names)).item() == before.item()
