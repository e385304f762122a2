"""Fixtures of the tests of training."""

import pytest

from retrodistill.datasets import Collection
from retrodistill.mining import mine_candidates
from retrodistill.store.runs import Run


@pytest.fixture(scope="module")
def scores(collection: Collection) -> Run:
    """BM25 scores of the train queries, their relevant documents among the candidates."""
    return mine_candidates(collection, "train", depth=20, add_positives=True)
