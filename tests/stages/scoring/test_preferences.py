"""Preferences between documents: planned as a ring, kept as scores are."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.base.config import MineSettings
from retrodistill.base.errors import DataError
from retrodistill.base.types import Comparisons
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import PreferenceStore, ScoreStore
from retrodistill.models.teachers.comparisons import ring
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import compare_candidates


class ByLength:
    """A comparer that prefers longer texts, and that counts what it is asked."""

    fingerprint = "by length"

    def __init__(self) -> None:
        self.asked = 0

    def compare(self, comparisons: Comparisons) -> np.ndarray:
        self.asked += len(comparisons)
        sizes = np.array([float(len(doc.full_text)) for doc in comparisons.docs])
        odds = sizes[comparisons.first_rows] - sizes[comparisons.second_rows]
        return (-np.logaddexp(0.0, -odds)).astype(np.float32)


@pytest.fixture(scope="module")
def candidates(collection: Collection) -> Run:
    return mine_candidates(collection, "train", settings=MineSettings(depth=9))


@given(st.lists(st.integers(0, 9), max_size=5), st.integers(0, 6))
def test_a_ring_compares_evenly_and_never_twice(sizes: list[int], opponents: int) -> None:
    """A pair that is paid for twice, a document that meets itself, or one of another query."""
    upper, lower = ring(np.array(sizes, np.int64), opponents)
    pairs = list(zip(upper.tolist(), lower.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    start = 0
    for size in sizes:
        edges = [pair for pair in pairs if start <= pair[0] < start + size]
        assert all(start <= a < b < start + size for a, b in edges)
        around = 0 < 2 * opponents < size - 1
        assert len(edges) == (size * opponents if around else size * (size - 1) // 2)
        met = [sum(position in pair for pair in edges) for position in range(start, start + size)]
        assert len(set(met)) <= 1
        start += size


def test_preferences_are_those_of_the_texts(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """An edge that is stored under the other document's id, or with the wrong sign."""
    store = compare_candidates(collection, candidates, ByLength(), tmp_path / "p", opponents=2)
    edges = store.edges()
    assert edges.column_names == ["query_id", "doc_id", "other_id", "log_p"]
    lists = candidates.to_dict()
    for row in edges.to_pylist():
        assert {row["doc_id"], row["other_id"]} <= lists[row["query_id"]].keys()
        longer = [len(collection.docs.get(row[name]).full_text) for name in ("doc_id", "other_id")]
        expected = -np.logaddexp(0.0, longer[1] - longer[0])
        assert row["log_p"] == pytest.approx(expected, abs=1e-5)


def test_more_opponents_pay_for_the_new_edges_only(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """Comparisons that are asked for again when a list is compared more thoroughly."""
    compare_candidates(collection, candidates, ByLength(), tmp_path / "p", opponents=2)
    more = ByLength()
    store = compare_candidates(collection, candidates, more, tmp_path / "p", opponents=0)
    lists = candidates.to_dict().values()
    few = sum(2 * len(edges) for edges in lists)
    assert len(store.edges()) == sum(len(edges) * (len(edges) - 1) // 2 for edges in lists)
    assert more.asked == len(store.edges()) - few
    resumed = ByLength()
    compare_candidates(collection, candidates, resumed, tmp_path / "p", opponents=0)
    assert resumed.asked == 0


def test_scores_and_preferences_do_not_share_a_folder(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """A log probability of an edge that is read as the score of a pair."""
    store = compare_candidates(collection, candidates, ByLength(), tmp_path / "p", opponents=2)
    with pytest.raises(DataError, match="is of kind 'preferences', but 'scores' was wanted"):
        ScoreStore(store.folder, teacher="by length")
    with pytest.raises(DataError, match="is of kind 'preferences'"):
        Run.read(store.folder)
    assert pc.max(PreferenceStore.open(store.folder).edges()["log_p"]).as_py() <= 0
