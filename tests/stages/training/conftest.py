"""Fixtures of the tests of training."""

import pytest

from retrodistill.base.config import MineSettings
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.stages.mining import mine_candidates


@pytest.fixture(scope="module")
def scores(collection: Collection) -> Run:
    """BM25 scores of the train queries, their relevant documents among the candidates."""
    return mine_candidates(collection, "train", settings=MineSettings(depth=20, add_positives=True))
