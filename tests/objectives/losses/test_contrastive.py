"""Losses of labels: numbers by hand, and references."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from fakes.batch import batch, value
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contrastive import (
    contrastive,
    contrastive_over_queries,
    decayed_contrastive,
    mixed_negatives,
    passage_centric,
    soft_nn,
)
from retrodistill.objectives.objective import LossTerm, Signals

SEEDS = st.integers(0, 2**32 - 1)


def row(*values: Any) -> Tensor:
    """Return a tensor of one row; numbers are float64."""
    whole = torch.tensor([values])
    return whole if whole.dtype == torch.bool else whole.double()


def several_positives(seed: int = 0) -> Signals:
    """Return a batch whose first and last query have two labelled candidates."""
    signals = batch(seed)
    signals["labels"][[0, -1], 1] = True
    signals["batch_labels"][0, 1] = True
    signals["batch_labels"][-1, 3 * 5 + 1] = True
    return signals


def cosines(left: Tensor, right: Tensor) -> np.ndarray:
    return (normalize(left, dim=-1) @ normalize(right, dim=-1).T).numpy()


def test_contrastive_by_hand() -> None:
    """Positive at 1, one negative at 0, T = 0.5: ln(1 + exp(-2)) = 0.1269 nats."""
    mask = row(True, True, False)
    loss = contrastive(row(1, 0, 9), mask, row(True, False, False), mask, temperature=0.5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2.0)))


def test_contrastive_does_not_push_positives_apart() -> None:
    """A second positive taken for a negative: two equal positives would cost ln 2 each."""
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss = contrastive(row(5, 5, -5), mask, row(True, True, False), mask, temperature=1.0)
    assert loss.item() < 1e-4


def test_contrastive_without_own_negatives_by_hand() -> None:
    """SimLM's cross-entropy with the own negatives left in, which is another loss.

    Positive and own negative at 1, another query's document at 0, T = 0.5: ln(2 + exp(-2)) nats
    with the own one, ln(1 + exp(-2)) without.
    """
    scores, candidates = row(1, 1, 0), row(True, True, False)
    labels, mask = row(True, False, False), row(True, True, True)
    full = contrastive(scores, candidates, labels, mask, temperature=0.5)
    without = contrastive(scores, candidates, labels, mask, temperature=0.5, own_negatives=False)
    assert full.item() == pytest.approx(math.log(2 + math.exp(-2.0)))
    assert without.item() == pytest.approx(math.log1p(math.exp(-2.0)))


def test_a_query_without_any_negative_has_no_loss() -> None:
    """-inf less -inf: one lone query whose loss, or gradient, is NaN."""
    scores, candidates = row(0.3, 0.2).requires_grad_(), row(True, True)
    loss = contrastive(scores, candidates, row(True, False), candidates, own_negatives=False)
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_contrastive_against_sentence_transformers() -> None:
    """A denominator that lacks the other queries' documents, or counts one twice."""
    queries, docs, negatives = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(3))
    reference = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=20.0)
    expected = reference.compute_loss_from_embeddings([queries, docs, negatives], torch.empty(0))
    eye, none = torch.eye(4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    scores = normalize(queries, dim=-1) @ normalize(torch.cat([docs, negatives]), dim=-1).T
    actual = contrastive(
        scores,
        torch.cat([eye, eye], dim=1),
        torch.cat([eye, none], dim=1),
        torch.ones(4, 8, dtype=torch.bool),
    )
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)


def test_soft_nn_by_hand() -> None:
    """Two positives and one negative, all at 0: -ln(2/3) = 0.4055 nats, not two terms of ln 2."""
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss = soft_nn(row(0, 0, 0), row(True, True, False), mask)
    assert loss.item() == pytest.approx(math.log(1.5))


def test_soft_nn_sums_exponentials_against_numpy() -> None:
    """The sum of the positives' logits in place of that of their exponentials."""
    signals = several_positives()
    scores, mask = signals["batch_scores"].numpy(), signals["batch_mask"].numpy()
    labels = signals["batch_labels"].numpy()
    terms = []
    for s, near, real in zip(scores, labels & mask, mask, strict=True):
        terms.append(-np.log(np.exp(s[near] / 0.05).sum() / np.exp(s[real] / 0.05).sum()))
    assert value("soft-nn", signals).item() == pytest.approx(np.mean(terms))


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_soft_nn_of_one_positive_is_contrastive(seed: int) -> None:
    """Two losses of one module that count different documents."""
    signals = batch(seed)
    assert value("soft-nn", signals).item() == pytest.approx(value("contrastive", signals).item())


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_soft_nn_asks_for_one_near_positive_only(seed: int) -> None:
    """A loss of several positives above that of the nearest: all of them would have to be near."""
    signals = several_positives(seed)
    scores = signals["batch_scores"]
    nearest = torch.zeros_like(signals["batch_labels"])
    positive = signals["batch_labels"] & signals["batch_mask"]
    best = scores.masked_fill(~positive, -torch.inf).argmax(-1)
    nearest[torch.arange(len(best)), best] = True
    alone = soft_nn(scores, nearest, signals["batch_mask"])
    assert value("soft-nn", signals).item() <= alone.item() + 1e-12


def test_decayed_contrastive_by_hand() -> None:
    """Teacher 2 for the positive, 1 and 2 for the negatives, centre -1, width 1, student all 0.

    Weights exp(0) = 1 and exp(-1/2), so ln(1 + 1 + exp(-1/2)) = 0.9583 nats. The last negative
    is padding.
    """
    loss = decayed_contrastive(
        row(0, 0, 0, 7),
        row(2, 1, 2, 1),
        row(True, True, True, False),
        row(True, False, False, False),
        row(True, True, True, False),
        temperature=1.0,
        centre=-1.0,
        width=1.0,
    )
    assert loss.item() == pytest.approx(math.log(2 + math.exp(-0.5)))


def test_decayed_contrastive_against_numpy() -> None:
    """Margins taken from candidate 0 where another candidate is the positive."""
    signals = several_positives()
    student, teacher = signals["student_scores"].numpy(), signals["teacher_scores"].numpy()
    mask, labels, trusted = (
        signals[name].numpy() for name in ("mask", "labels", "trusted_negatives")
    )
    terms = []
    for s, t, real, relevant, allowed in zip(
        student / 0.5, teacher, mask, labels, trusted, strict=True
    ):
        for positive in np.flatnonzero(real & relevant):
            weights = np.exp(-((t - t[positive] + 0.3) ** 2) / (2 * 0.7**2))
            negatives = (weights * np.exp(s))[real & ~relevant & allowed].sum()
            terms.append(-np.log(np.exp(s[positive]) / (np.exp(s[positive]) + negatives)))
    actual = decayed_contrastive(
        *(signals[name] for name in LossTerm(name="decayed-contrastive").signals),
        temperature=0.5,
        centre=-0.3,
        width=0.7,
    )
    assert actual.item() == pytest.approx(np.mean(terms))


def test_a_wide_decay_is_infonce_over_the_list() -> None:
    """Weights that never become equal, so that the setting has no neutral value."""
    student, teacher = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(3, 5, dtype=torch.bool)
    labels[:, 0] = True
    mask = torch.ones_like(labels)
    actual = decayed_contrastive(student, teacher, mask, labels, mask, temperature=0.2, width=1e6)
    expected = cross_entropy(student / 0.2, torch.zeros(3, dtype=torch.long))
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)


def test_likely_false_negatives_fade() -> None:
    """A sign: the candidate that the teacher prefers to the positive pushed away the most."""
    student = row(0, 0, 0).requires_grad_()
    labels, mask = row(True, False, False), row(True, True, True)
    decayed_contrastive(student, row(5, 8, 4), mask, labels, mask, centre=-1.0).backward()
    assert student.grad is not None
    assert 0 < student.grad[0, 1] < 0.01 * student.grad[0, 2]


def test_doubtful_candidates_are_no_negatives_of_decayed_contrastive() -> None:
    """A filter of false negatives that this loss does not know, and so pushes them away."""
    student = row(0, 0, 0).requires_grad_()
    labels, mask = row(True, False, False), row(True, True, True)
    decayed_contrastive(student, row(5, 5, 4), mask, labels, row(True, False, True)).backward()
    assert student.grad is not None
    assert student.grad[0, 1] == 0
    assert student.grad[0, 2] > 0


def test_decayed_contrastive_says_what_is_wrong() -> None:
    """A width of 0, whose weights are NaN; a list of positives alone, whose mean is NaN."""
    zeros, real = row(0, 0), row(True, True)
    with pytest.raises(ConfigError, match="width must be above 0"):
        decayed_contrastive(zeros, zeros, real, row(True, False), real, width=0.0)
    assert decayed_contrastive(zeros, zeros, real, real, real).item() == 0
    assert decayed_contrastive(zeros, zeros, real, row(True, False), row(True, False)).item() == 0


def test_passage_centric_by_hand() -> None:
    """q.p+ = 1, p+.p- = 0, T = 1: ln(1 + exp(-1)) = 0.3133 nats, whatever q.p- is."""
    docs = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    for score in (-4, 7):
        loss = passage_centric(
            row(1, score), docs, row(True, False), row(True, True), temperature=1.0
        )
        assert loss.item() == pytest.approx(math.log1p(math.exp(-1.0)))


def test_passage_centric_against_numpy() -> None:
    """A positive passage pushed away from the query's other positives, or from itself."""
    signals = several_positives()
    scores, docs = signals["batch_scores"].numpy(), signals["doc_vectors"].numpy()
    mask, labels = signals["batch_mask"].numpy(), signals["batch_labels"].numpy()
    terms = []
    for s, real, relevant in zip(scores, mask, labels, strict=True):
        for positive in np.flatnonzero(real & relevant):
            logits = [s[positive] / 0.05, *(docs[real & ~relevant] @ docs[positive] / 0.05)]
            terms.append(np.logaddexp.reduce(logits) - logits[0])
    assert value("passage-centric", signals).item() == pytest.approx(np.mean(terms))


def test_mixed_negatives_by_hand() -> None:
    """q = p+ = (1, 0), p- = (0, 1), share 1/2: m = (0.7071, 0.7071).

    At T = 1, ln(e^1 + e^0.7071 + e^0) - 1 = 0.7494 nats; lengths of vectors do not count.
    """
    loss = mixed_negatives(
        torch.tensor([[2.0, 0.0]]),
        torch.tensor([[3.0, 0.0], [0.0, 5.0]]),
        row(True, False),
        row(True, True),
        temperature=1.0,
        share=0.5,
    )
    expected = math.log(math.e + math.exp(math.sqrt(0.5)) + 1.0) - 1.0
    assert loss.item() == pytest.approx(expected)


def test_mixed_negatives_against_numpy() -> None:
    """A mixture with a document that the batch's mask takes out, or with another's positive."""
    signals = several_positives()
    scores = cosines(signals["query_vectors"], signals["doc_vectors"])
    queries = normalize(signals["query_vectors"], dim=-1).numpy()
    docs = normalize(signals["doc_vectors"], dim=-1).numpy()
    mask, labels = signals["batch_mask"].numpy(), signals["batch_labels"].numpy()
    terms = []
    for q, s, real, relevant in zip(queries, scores, mask, labels, strict=True):
        negatives = np.flatnonzero(real & ~relevant)
        hardest = max(negatives, key=lambda place: s[place])
        for positive in np.flatnonzero(real & relevant):
            mixture = 0.2 * docs[positive] + 0.8 * docs[hardest]
            mixed = q @ mixture / np.linalg.norm(mixture)
            logits = np.array([s[positive], mixed, *s[negatives]]) / 0.05
            terms.append(np.logaddexp.reduce(logits) - logits[0])
    assert value("mixed-negatives", signals).item() == pytest.approx(np.mean(terms))


def test_no_gradient_goes_through_a_mixture() -> None:
    """A positive pushed away from its query through its own mixture."""
    query = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    docs = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    fixed = normalize(0.2 * docs[0] + 0.8 * docs[1], dim=-1)
    leaves = [tensor.clone().requires_grad_() for tensor in (query, docs)]
    mixed_negatives(*leaves, row(True, False), row(True, True), temperature=0.5).backward()
    references = [tensor.clone().requires_grad_() for tensor in (query, docs)]
    unit = normalize(references[0], dim=-1), normalize(references[1], dim=-1)
    logits = unit[0] @ torch.cat([unit[1], fixed[None]]).T / 0.5
    cross_entropy(logits, torch.tensor([0])).backward()
    for actual, expected in zip(leaves, references, strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)


def test_mixed_negatives_without_a_negative() -> None:
    """The positive mixed with whatever document is first, where there is no negative."""
    query, docs = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    loss = mixed_negatives(query, docs, row(True, False), row(True, False))
    assert loss.item() == 0.0


def test_a_mixture_is_never_the_positive_itself() -> None:
    """A share of 1, at which the positive is its own negative and costs ln 2."""
    query, docs = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ConfigError, match="below 1"):
        mixed_negatives(query, docs, row(True, False), row(True, True), share=1.0)


def test_a_document_chooses_among_queries_by_hand() -> None:
    """Its own query against one other, all scores equal: ln 2; the hard negative takes no part."""
    scores = torch.zeros(2, 3, dtype=torch.float64)
    labels = torch.tensor([[True, False, False], [False, False, True]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert contrastive_over_queries(scores, labels, mask).item() == pytest.approx(math.log(2))
    scores[:, 1] = 9.0  # the first query's hard negative
    assert contrastive_over_queries(scores, labels, mask).item() == pytest.approx(math.log(2))


def test_choosing_among_queries_is_infonce_of_the_transposed_batch() -> None:
    """InfoNCE in the usual direction under the other name."""
    signals = batch()
    names = ("batch_scores", "batch_labels", "batch_mask")
    scores, labels, mask = (signals[name] for name in names)
    expected = [
        cross_entropy(
            torch.cat([scores[[r], c], scores[(mask & ~labels)[:, c], c]])[None] / 0.05,
            torch.tensor([0]),
        )
        for r, c in (labels & mask).nonzero().tolist()
    ]
    loss = contrastive_over_queries(scores, labels, mask)
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item())
    assert loss.item() != pytest.approx(value("contrastive", signals).item())
