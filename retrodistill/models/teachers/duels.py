"""Round-robins: which documents of a list meet, and what their meetings say of each."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.types import Duels, Pairs

Rows = NDArray[np.int64]

SMALLEST = float(np.finfo(np.float32).tiny)
"""The least nats between a preference and certainty: the loser's log p is then -87, not -inf."""


def ring(sizes: Rows, opponents: int) -> tuple[Rows, Rows]:
    """Return the places (first, second) of the duels within consecutive lists of given sizes.

    Each place of a list meets the next `opponents` of it, the last being followed by the first;
    0, or a number that goes half around, means all pairs. A pair comes once, its earlier place
    first, in the order of its places.
    """
    starts = np.cumsum(sizes) - sizes
    duels = [np.empty((2, 0), np.int64)]
    for size in np.unique(sizes):
        first, second = np.triu_indices(size, 1)
        if 0 < 2 * opponents < size - 1:
            near = np.minimum(second - first, size - second + first) <= opponents
            first, second = first[near], second[near]
        own = starts[sizes == size][:, None]
        duels.append(np.stack([(own + first).ravel(), (own + second).ravel()]))
    first, second = np.concatenate(duels, axis=1)
    order = np.lexsort((second, first))
    return first[order], second[order]


def duels_of(pairs: Pairs, opponents: int = 0) -> Duels:
    """Return the duels between the candidates of each query.

    Each candidate meets the next `opponents` of its list, cyclically (0: all others). A duel
    says as much of its second document as of its first, so each has twice as many opponents.
    """
    order = np.argsort(pairs.query_rows, kind="stable")
    sizes = np.bincount(pairs.query_rows, minlength=len(pairs.queries))
    first, second = (order[places] for places in ring(sizes, opponents))
    return Duels(
        pairs.queries,
        pairs.docs,
        pairs.query_rows[first],
        pairs.doc_rows[first],
        pairs.doc_rows[second],
    )


def mean_preference(pairs: Pairs, duels: Duels, log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each pair's mean log p(its document is better) over the duels it is in, in nats.

    `duels` are over the texts of `pairs`, with log p(first is better) each; a second document
    has the log of what is left to 1. The only candidate of a query has no opponent, and gets 0.
    """
    width = len(pairs.docs)
    keys, own = np.unique(pairs.query_rows * width + pairs.doc_rows, return_inverse=True)
    rows = np.concatenate([duels.first_rows, duels.second_rows])
    places = np.searchsorted(keys, np.tile(duels.query_rows, 2) * width + rows)
    wins = np.minimum(log_p.astype(np.float64), -SMALLEST)
    sums = np.bincount(places, np.concatenate([wins, log_complement(wins)]), len(keys))
    counts = np.bincount(places, minlength=len(keys))
    means: NDArray[np.float64] = sums / np.maximum(counts, 1)
    return means[own].astype(np.float32)


def log_complement(log_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(1 - p) for log p below 0, without loss near either end."""
    near_one = log_p > -np.log(2.0)
    return np.where(
        near_one,
        np.log(-np.expm1(np.where(near_one, log_p, -1.0))),
        np.log1p(-np.exp(np.where(near_one, -1.0, log_p))),
    )


def in_both_orders(
    duels: Duels, log_odds: Callable[[Duels], NDArray[np.floating]]
) -> NDArray[np.float32]:
    """Return log p(first is better) of each duel, from a judge who hears both orders.

    `log_odds` gives log p / (1 - p) that the document which is named first is better. Each order
    of each duel is asked once, however often it occurs. The answer is the mean of the two orders'
    log-probabilities, scaled so that both outcomes add up to 1: the log-sigmoid of half the
    difference of the two log-odds. So a duel and its mirror always agree.
    """
    forth = np.stack([duels.query_rows, duels.first_rows, duels.second_rows])
    asked, places = np.unique(
        np.concatenate([forth, forth[[0, 2, 1]]], axis=1), axis=1, return_inverse=True
    )
    odds = log_odds(Duels(duels.queries, duels.docs, *asked)).astype(np.float64)
    there, back = np.split(odds[places.reshape(-1)], 2)
    return (-np.logaddexp(0.0, (back - there) / 2)).astype(np.float32)
