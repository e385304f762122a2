"""Sparsity: a number by hand, and a reference."""

import pytest
import torch
from fakes.batch import batch, value
from sentence_transformers.sparse_encoder.losses import FlopsLoss

from retrodistill.objectives.losses.sparsity import flops


def test_flops_by_hand() -> None:
    """Queries: means of absolute values 2 and 0: 4. Documents: 1 and 3: 10. Sum 14.

    The negative activation counts as 2. With weights 0.5 and 0.1: 2 + 1 = 3.
    """
    queries = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    docs = torch.tensor([[1.0, 3.0]])
    assert flops(queries, docs).item() == 14.0
    assert flops(queries, docs, query_weight=0.5, doc_weight=0.1).item() == pytest.approx(3.0)


def test_flops_against_sentence_transformers() -> None:
    """The square inside the mean, which does not care how entries are spread."""
    signals = batch()
    reference = FlopsLoss(torch.nn.Identity())
    expected = sum(
        reference.compute_loss_from_embeddings(signals[name].abs())
        for name in ("query_vectors", "doc_vectors")
    )
    assert value("flops", signals).item() == pytest.approx(float(expected))


def test_spread_entries_cost_less_than_piled_up_ones() -> None:
    """A penalty of the entries' sum alone: every text in one posting list of the index."""
    query = torch.zeros(1, 2)
    spread, piled = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert flops(query, spread).item() < flops(query, piled).item()
