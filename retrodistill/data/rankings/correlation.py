"""How alike two rankings of the same queries are, all lists at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrodistill.data.rankings.segments import Floats, Numbers, Segments


@dataclass(frozen=True, eq=False, slots=True)
class Rankings:
    """One ranked list for each query: scores in descending order."""

    lists: Segments
    scores: Floats

    def first_ranks(self) -> Numbers:
        """Return each row's rank, from 1; tied rows share the first of theirs."""
        rows = np.arange(len(self.scores))
        starts = self.lists.spread(self.lists.starts)
        new = (rows == starts) | (np.diff(self.scores, prepend=np.nan) != 0)
        first: Numbers = np.maximum.accumulate(np.where(new, rows, 0)) - starts.astype(int) + 1
        return first


def pearson(lists: Segments, a: Floats, b: Floats) -> Floats:
    """Return Pearson's correlation of two columns in each list; 0 where one is constant.

    It is also the correlation of the differences between all pairs of the list's rows.
    """
    products = lists.standardised(a) * lists.standardised(b)
    return np.clip(lists.sums(products) / lists.lengths, -1, 1)


def spearman(lists: Segments, a: Floats, b: Floats) -> Floats:
    """Return Pearson's correlation of the ranks, tied rows at the mean of theirs."""
    return pearson(lists, _mean_ranks(_classes(lists, a)), _mean_ranks(_classes(lists, b)))


def kendall_tau(lists: Segments, a: Floats, b: Floats) -> Floats:
    """Return Kendall's tau-b of two columns in each list; 0 where one is constant.

    tau-b = (concordant - discordant) / sqrt(pairs untied in a * pairs untied in b)

    In O(n log^2 n), so that lists may be long.
    """
    first, second = _classes(lists, a), _classes(lists, b)
    both = first * (len(second) + 1) + second
    order = np.argsort(both)
    joint = _numbered(order, np.diff(both[order], prepend=-1) != 0)
    pairs = lists.lengths * (lists.lengths - 1) / 2
    tied_a, tied_b, tied_both = (_tied_pairs(lists, c) for c in (first, second, joint))
    discordant = _inversions(lists, second[order])
    gap = pairs - tied_a - tied_b + tied_both - 2 * discordant
    untied = np.sqrt((pairs - tied_a) * (pairs - tied_b))
    return np.divide(gap, untied, out=np.zeros(len(lists)), where=untied > 0)


def pooled_margins(lists: Segments, a: Floats, b: Floats) -> float | None:
    """Return Pearson's correlation of margins, those of all lists in one pool; None if undefined.

    The pool holds a[i] - a[j] and b[i] - b[j] for every ordered pair of rows of one list. Its mean
    is 0, and a list of n rows adds 2n times the sum of the products of their gaps to the mean.
    """
    gaps = [x - lists.spread(lists.sums(x) / lists.lengths) for x in (a, b)]
    products, left, right = (
        float((lists.lengths * lists.sums(x * y)).sum())
        for x, y in ((gaps[0], gaps[1]), (gaps[0], gaps[0]), (gaps[1], gaps[1]))
    )
    return float(np.clip(products / (left * right) ** 0.5, -1, 1)) if left and right else None


def rank_biased_overlap(
    a: Rankings, b: Rankings, shared: tuple[Numbers, Numbers], *, p: float = 0.9
) -> Floats:
    """Return the extrapolated rank-biased overlap of each query's two lists.

    RBO = (1 - p) / p * sum over d = 1..l of p^d A_d, + p^l A_l

    where A_d = 2 |A:d & B:d| / (|A:d| + |B:d|) is the agreement of the first d, and l the length
    of the longer list. Tied rows all stand at the first rank of theirs. Below the end of the
    shorter list, of length s, what it lacks is taken to agree at the rate A_s; without ties this
    is equation 32 of the source. `shared` names, for each document that a query has in both
    lists, its row in `a` and its row in `b`.

    Source: Webber, Moffat and Zobel 2010, "A similarity measure for indefinite rankings".
    """
    longer = np.maximum(a.lists.lengths, b.lists.lengths)
    shorter = np.minimum(a.lists.lengths, b.lists.lengths)
    cells = Segments(np.cumsum(longer) - longer, longer)  # one for each depth of each query
    depths = cells.ranks()

    def so_far(queries: Floats, ranks: Numbers) -> Floats:
        added = np.bincount(cells.starts[queries.astype(int)] + ranks - 1, minlength=longer.sum())
        total = np.cumsum(added)
        return total - cells.spread((total - added)[cells.starts])

    ranks = [side.first_ranks() for side in (a, b)]
    owners = [side.lists.spread(np.arange(len(cells))) for side in (a, b)]
    sizes = sum(np.maximum(so_far(o, r), depths) for o, r in zip(owners, ranks, strict=True))
    common = so_far(owners[0][shared[0]], np.maximum(ranks[0][shared[0]], ranks[1][shared[1]]))
    rates = (2 * common / sizes)[cells.starts + shorter - 1]
    unseen = np.maximum(depths - cells.spread(shorter), 0)
    agreement = 2 * (common + cells.spread(rates) * unseen) / sizes * p**depths
    last = agreement[cells.starts + longer - 1]
    return np.minimum((1 - p) / p * cells.sums(agreement) + last, 1)


def _classes(lists: Segments, values: Floats) -> Numbers:
    """Return a number for each row that grows by list, then by value; equal values share it."""
    owners = lists.spread(np.arange(len(lists)))
    by_value = np.argsort(values)  # in any order where they are equal, which is faster than lexsort
    order = by_value[np.argsort(owners[by_value], kind="stable")]
    new = (np.diff(owners[order], prepend=-1) != 0) | (np.diff(values[order], prepend=np.nan) != 0)
    return _numbered(order, new)


def _numbered(order: Numbers, is_new: NDArray[np.bool_]) -> Numbers:
    """Return the class of each row, where rows in this order begin a class or continue one."""
    classes = np.empty(len(order), np.int64)
    classes[order] = np.cumsum(is_new) - 1
    return classes


def _mean_ranks(classes: Numbers) -> Floats:
    """Return the mean place of each row's class among all rows; a list's own are these, moved."""
    counts = np.bincount(classes)
    means: Floats = (np.cumsum(counts) - (counts - 1) / 2)[classes]
    return means


def _tied_pairs(lists: Segments, classes: Numbers) -> Floats:
    """Return the number of pairs of each list that stand in one class."""
    return lists.sums((np.bincount(classes)[classes] - 1) / 2)


def _inversions(lists: Segments, classes: Numbers) -> Floats:
    """Return how many pairs of each list stand in descending order.

    Two numbers differ first in one bit. Bit by bit: among the rows that agree in all higher bits,
    those with a 1 before each one with a 0.
    """
    owners = lists.spread(np.arange(len(lists))).astype(np.int64)
    numbers = classes - lists.spread(-lists.highest(-classes)).astype(np.int64)
    bits = int(numbers.max(initial=0)).bit_length()
    found = np.zeros(len(lists))
    for bit in range(bits):
        block = (owners << (bits - bit)) + (numbers >> (bit + 1))
        order = np.argsort(block, kind="stable")
        blocks = Segments.of(block[order])
        ones = (numbers[order] >> bit) & 1
        before = np.cumsum(ones) - ones
        before = before - blocks.spread(before[blocks.starts])
        found += lists.sums(np.where(ones == 0, before, 0.0))
    return found
