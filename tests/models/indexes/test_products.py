"""The largest inner products, against sorting all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.models.indexes.products import BLOCK, QUERIES, largest, merged


@given(
    queries=st.integers(1, 5),
    vectors=st.sampled_from([1, 2, BLOCK - 1, BLOCK, 4 * BLOCK, 9 * BLOCK + 5]),
    k=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_they_are_the_ones_of_a_sort(queries: int, vectors: int, k: int, seed: int) -> None:
    """A best document in the last, incomplete block, or in a block whose maximum it is not."""
    generator = np.random.default_rng(seed)
    left = generator.standard_normal((queries, 4), np.float32)
    right = generator.standard_normal((vectors, 4), np.float32)
    scores, places = largest(left, right, min(k, vectors))
    products = left @ right.T
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :k], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        np.take_along_axis(products, places, axis=1), scores, rtol=1e-5, atol=1e-6
    )


def test_equal_products_are_found_once_each() -> None:
    """The same document in several places of a list, where many are equal."""
    scores, places = largest(np.ones((2, 3), np.float32), np.ones((9 * BLOCK, 3), np.float32), 8)
    assert (scores == 3).all()
    assert all(len(set(row)) == 8 for row in places.tolist())


@pytest.mark.parametrize("queries", [QUERIES - 1, QUERIES + 1])
def test_more_queries_than_are_multiplied_together(queries: int) -> None:
    """Queries of the second batch that are left out, or in the place of the first."""
    vectors = np.eye(16, dtype=np.float32)
    asked = vectors[np.arange(queries) % 16]
    _, places = largest(asked, vectors, 1)
    assert places[:, 0].tolist() == (np.arange(queries) % 16).tolist()


def test_lists_are_merged_with_the_first_in_front() -> None:
    """Places that lose their scores, or an order that depends on the sort."""
    first = np.array([[3.0, 1.0]], np.float32), np.array([[7, 8]])
    second = np.array([[3.0, 2.0]], np.float32), np.array([[9, 10]])
    scores, places = merged(first, second, 3)
    assert scores.tolist() == [[3.0, 3.0, 2.0]]
    assert places.tolist() == [[7, 9, 10]]
