"""The largest inner products of a batch of queries with many vectors, by matrix products."""

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

QUERIES = 512
"""Queries that are multiplied together: with 8,192 vectors, their products take 16 MB."""
BLOCK = 64
"""Products that are first looked at through their maximum."""

Best = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Products and places of vectors, both of shape (queries, k), the largest first."""


def largest(queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int) -> Best:
    """Return the `k` largest products of each query, of at least `k` vectors."""
    parts = [
        _largest(queries[start : start + QUERIES] @ vectors.T, k)
        for start in range(0, len(queries), QUERIES)
    ]
    return np.concatenate([scores for scores, _ in parts]), np.concatenate([at for _, at in parts])


def merged(first: Best, second: Best, k: int) -> Best:
    """Return the `k` largest of two lists for each query; of equal ones, those of the first."""
    scores = np.concatenate([first[0], second[0]], axis=1)
    places = np.concatenate([first[1], second[1]], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)


def _largest(products: NDArray[np.float32], k: int) -> Best:
    columns = _candidates(products, k)
    scores = products if columns is None else np.take_along_axis(products, columns, axis=1)
    if k < scores.shape[1]:
        at = np.argpartition(scores, -k, axis=1)[:, -k:]
        scores = np.take_along_axis(scores, at, axis=1)
        columns = at if columns is None else np.take_along_axis(columns, at, axis=1)
    elif columns is None:
        columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return merged((scores, columns), (scores[:, :0], columns[:, :0]), k)


def _candidates(products: NDArray[np.float32], k: int) -> NDArray[np.int64] | None:
    """Return columns that hold each row's `k` largest; None for all of them.

    They lie in the `k` blocks with the largest maxima, or behind the last whole block. A block's
    columns stand as far from each other as there are blocks: maxima are then taken side by side.
    """
    rows, columns = products.shape
    blocks = columns // BLOCK
    if blocks < 4 * k:
        return None
    step, item = products.strides
    whole = as_strided(
        products, (rows, BLOCK, blocks), (step, blocks * item, item), writeable=False
    )
    best = np.argpartition(whole.max(axis=1), -k, axis=1)[:, -k:]
    inside = (best[:, :, None] + blocks * np.arange(BLOCK)).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(blocks * BLOCK, columns), (rows, columns - blocks * BLOCK))
    return np.concatenate([inside, rest], axis=1)
