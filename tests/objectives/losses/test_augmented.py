"""Losses of augmented vectors: numbers by hand, and what they would silently become."""

import math

import pytest
import torch
from fakes.batch import batch
from torch.nn.functional import normalize

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.augmented import mixup_contrastive, simcse
from retrodistill.objectives.losses.contrastive import contrastive


def test_mixup_contrastive_by_hand() -> None:
    """Queries and documents (1, 0), (0, 1): the mixture (0.8, 0.2) has cosines 0.9701 and 0.2425.

    T = 1: ln(exp(0.9701) + exp(0.2425)) - 0.8 * 0.9701 - 0.2 * 0.2425, from either side.
    """
    axes, own = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.bool)
    loss = mixup_contrastive(axes, 3 * axes, own, torch.ones_like(own), temperature=1.0)
    first, second = 0.8 / math.hypot(0.8, 0.2), 0.2 / math.hypot(0.8, 0.2)
    expected = math.log(math.exp(first) + math.exp(second)) - 0.8 * first - 0.2 * second
    assert loss.item() == pytest.approx(expected)


def test_mixup_contrastive_is_contrastive_only_where_nothing_is_mixed() -> None:
    """A mixture that nobody mixes, or that has to find its own document alone."""
    signals = batch()
    vectors = [normalize(signals[name], dim=-1) for name in ("query_vectors", "doc_vectors")]
    labels, mask = signals["batch_labels"], signals["batch_mask"]
    scores = vectors[0] @ vectors[1].T
    plain = contrastive(scores, signals["batch_candidates"], labels, mask).item()
    assert mixup_contrastive(*vectors, labels, mask, share=1.0).item() == pytest.approx(plain)
    assert mixup_contrastive(*vectors, labels, mask).item() != pytest.approx(plain, rel=0.01)
    alone = labels.clone()
    alone[1:] = False
    one = contrastive(scores, signals["batch_candidates"], alone, mask).item()
    assert mixup_contrastive(*vectors, alone, mask).item() == pytest.approx(one)
    with pytest.raises(ConfigError, match=r"share must be from 0.5 to 1"):
        mixup_contrastive(*vectors, labels, mask, share=0.2)


def test_simcse_by_hand() -> None:
    """A query (1, 0) and a document (0, 1), of which the second pass turns the document to (1, 0).

    T = 1: the query meets cosines 1, 1: ln 2. The document meets 0, 0: ln 2. Lengths do not count.
    """
    query, doc = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    loss = simcse(query, doc, query, torch.tensor([[5.0, 0.0]]), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(2))
    same = simcse(query, doc, query, doc, temperature=1.0)
    assert same.item() == pytest.approx(math.log(1 + math.exp(-1)))
