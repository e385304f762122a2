"""The order in which vectors lie, and the pieces in which a scan reads them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrodistill.data.filters import Attributes, parse_where
from retrodistill.models.indexes.layout import LONG, arranged, pieces


def runs(mask: NDArray[np.bool_]) -> int:
    return int((np.diff(np.append(False, mask).astype(int)) == 1).sum())


def test_conditions_of_the_workload_meet_few_runs() -> None:
    """A layout that leaves the rows of a condition scattered is work for nothing."""
    generator = np.random.default_rng(0)
    attributes = Attributes.from_table(pa.table({"part": generator.integers(0, 100, 5000)}))
    workload = [parse_where(text) for text in ("part < 50", "part < 50", "part >= 40", "part = 7")]
    order = arranged(attributes, workload)
    assert sorted(order) == list(range(5000))
    sorted_ones = attributes.take(order)
    for condition, most in zip(workload, (1, 1, 2, 1), strict=True):
        assert runs(attributes.matching(condition)) > 30
        assert runs(sorted_ones.matching(condition)) <= most


def test_the_dearest_condition_is_the_first_key() -> None:
    """Sorts in another order, or ones that are not stable, which part the rows of a condition."""
    generator = np.random.default_rng(1)
    attributes = Attributes.from_table(pa.table({"part": generator.integers(0, 9, 500)}))
    dear, cheap = parse_where("part < 6"), parse_where("part in (2, 7, 8)")
    keys = [attributes.matching(cheap), attributes.matching(dear)]  # lexsort's last key counts most
    for workload in ([dear, cheap, cheap, dear], [cheap, dear]):
        assert arranged(attributes, workload).tolist() == np.lexsort(keys).tolist()


def test_without_a_workload_nothing_moves() -> None:
    attributes = Attributes.from_table(pa.table({"a": [3, 1, 2]}))
    assert arranged(attributes, []).tolist() == [0, 1, 2]


@given(st.lists(st.integers(0, 4 * LONG), unique=True), st.integers(1, 2 * LONG))
def test_pieces_are_the_rows(rows: list[int], size: int) -> None:
    """A row that is read twice or never is found twice or never."""
    ascending = np.array(sorted(rows), np.int64)
    found = list(pieces(ascending, size))
    assert sorted(np.concatenate([np.zeros(0, np.int64), *found]).tolist()) == sorted(rows)
    assert all(0 < len(piece) <= size for piece in found)


@pytest.mark.parametrize("gap", [0, 1])
def test_long_runs_stay_whole(gap: int) -> None:
    """A run that is cut or mixed with others has to be copied."""
    rows = np.concatenate([np.arange(10, 12), np.arange(100, 100 + LONG - gap)])
    found = [piece.tolist() for piece in pieces(rows, 10_000)]
    assert (list(range(100, 100 + LONG)) in found) == (gap == 0)
