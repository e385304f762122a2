"""Round-robins: which documents of a list are compared, and what the comparisons say of each."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.types import Comparisons, Pairs, Rows

SMALLEST = float(np.finfo(np.float32).tiny)
"""The least nats between a preference and certainty: the loser's log p is then -87, not -inf."""


def ring(sizes: Rows, opponents: int) -> tuple[Rows, Rows]:
    """Return the positions (first, second) to compare within consecutive lists of given sizes.

    Each position of a list meets the next `opponents` of it, the last being followed by the
    first; 0, or a number that goes half around, means all pairs. A pair comes once, its earlier
    position first, in the order of its positions.
    """
    starts = np.cumsum(sizes) - sizes
    pairs = [np.empty((2, 0), np.int64)]
    for size in np.unique(sizes):
        # The pairs within one list of this size: all of them, or those near each other on the ring.
        first, second = np.triu_indices(size, 1)
        if 0 < 2 * opponents < size - 1:
            is_near = np.minimum(second - first, size - second + first) <= opponents
            first, second = first[is_near], second[is_near]
        # The same pairs in every list of this size: (lists, pairs), then flat.
        offsets = starts[sizes == size][:, None]
        pairs.append(np.stack([(offsets + first).ravel(), (offsets + second).ravel()]))
    first, second = np.concatenate(pairs, axis=1)
    order = np.lexsort((second, first))
    return first[order], second[order]


def comparisons_of(pairs: Pairs, opponents: int = 0) -> Comparisons:
    """Return the comparisons between the candidates of each query.

    Each candidate meets the next `opponents` of its list, cyclically (0: all others). A comparison
    counts for its second document as much as for its first, so each has twice as many opponents.
    """
    order = np.argsort(pairs.query_rows, kind="stable")
    sizes = np.bincount(pairs.query_rows, minlength=len(pairs.queries))
    first, second = (order[positions] for positions in ring(sizes, opponents))
    return Comparisons(
        pairs.queries,
        pairs.docs,
        pairs.query_rows[first],
        pairs.doc_rows[first],
        pairs.doc_rows[second],
    )


def mean_preference(
    pairs: Pairs, comparisons: Comparisons, log_p: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return each pair's mean log p(its document is better) over its comparisons, in nats.

    `comparisons` are over the texts of `pairs`, with log p(first is better) each; a second
    document gets log(1 - p). The only candidate of a query has no opponent, and gets 0.
    """
    # One number for each (query, document), and where both documents of a comparison have theirs.
    width = len(pairs.docs)
    keys, key_of_pair = np.unique(pairs.query_rows * width + pairs.doc_rows, return_inverse=True)
    doc_rows = np.concatenate([comparisons.first_rows, comparisons.second_rows])
    positions = np.searchsorted(keys, np.tile(comparisons.query_rows, 2) * width + doc_rows)
    # Sums and counts over the first and the second documents, then means.
    wins = np.minimum(log_p.astype(np.float64), -SMALLEST)
    sums = np.bincount(positions, np.concatenate([wins, log_complement(wins)]), len(keys))
    counts = np.bincount(positions, minlength=len(keys))
    means: NDArray[np.float64] = sums / np.maximum(counts, 1)
    return means[key_of_pair].astype(np.float32)


def log_complement(log_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(1 - p) for log p below 0, without loss near either end."""
    near_one = log_p > -np.log(2.0)
    return np.where(
        near_one,
        np.log(-np.expm1(np.where(near_one, log_p, -1.0))),
        np.log1p(-np.exp(np.where(near_one, -1.0, log_p))),
    )


def in_both_orders(
    comparisons: Comparisons, log_odds: Callable[[Comparisons], NDArray[np.floating]]
) -> NDArray[np.float32]:
    """Return log p(first is better) of each comparison, from a judge who is asked in both orders.

    `log_odds` gives log p / (1 - p) that the document which is named first is better. Each order
    of each comparison is asked once, however often it occurs. The answer is the mean of the two
    orders' log-probabilities, scaled so that both outcomes add up to 1: the log-sigmoid of half
    the difference of the two log-odds. So a comparison and its mirror always agree.
    """
    # Distinct questions, (3, questions): query, first and second document, in either order.
    forth = np.stack([comparisons.query_rows, comparisons.first_rows, comparisons.second_rows])
    questions, positions = np.unique(
        np.concatenate([forth, forth[[0, 2, 1]]], axis=1), axis=1, return_inverse=True
    )
    odds = log_odds(Comparisons(comparisons.queries, comparisons.docs, *questions))
    # Each comparison's own order and its mirror.
    there, back = np.split(odds.astype(np.float64)[positions.reshape(-1)], 2)
    return (-np.logaddexp(0.0, (back - there) / 2)).astype(np.float32)
