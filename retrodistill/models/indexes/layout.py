"""Where vectors lie: those that the same conditions ask for, side by side.

Sorted by which conditions of a workload they fit, the rows of each condition form a few long runs,
which a scan reads in place instead of gathering them one by one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from retrodistill.data.filters import Attributes, Expression

LONG = 512
"""Rows of a run from which reading it in place is worth a product of its own."""


def arranged(attributes: "Attributes", workload: "Sequence[Expression]") -> NDArray[np.int64]:
    """Return the order of rows in which the conditions of a workload meet long runs.

    Conditions are the keys of one sort, those first that cost most: how often they are asked times
    how many rows fit. Rows that no condition asks for come first; equal rows keep their order.

    Source: ours; the aim, a layout by the workload's conditions, is that of HQI, Mohoney et al.
    2023, arXiv:2304.01926, which splits the space of attributes by a tree instead.
    """
    costs = {
        condition: times * int(attributes.matching(condition).sum())
        for condition, times in Counter(workload).items()
    }
    order = np.arange(len(attributes))
    for condition in sorted(costs, key=costs.__getitem__):  # the last sort counts most
        fits = attributes.matching(condition)[order]  # evaluated again: a workload may be long
        order = np.concatenate([order[~fits], order[fits]])
    return order


def pieces(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Yield ascending rows in pieces of at most `size`: long runs alone, then all others."""
    ends = np.append(np.flatnonzero(np.diff(rows) != 1) + 1, len(rows))
    starts = np.append(0, ends[:-1])
    long = ends - starts >= LONG
    for start, end in zip(starts[long], ends[long], strict=True):
        for first in range(start, end, size):
            yield rows[first : min(first + size, end)]
    short = rows[np.repeat(~long, ends - starts)]
    for first in range(0, len(short), size):
        yield short[first : first + size]
