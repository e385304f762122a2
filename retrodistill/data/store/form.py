"""What a row of a store is: ids of texts, the key of these texts, and a teacher's number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.data.store.columns import coded

Keys = NDArray[np.uint64]

TextKeys = Callable[[pa.Table], Keys]
"""Gives the key of the texts that the ids of each row name."""


@dataclass(frozen=True, slots=True)
class Form:
    """The columns of a kind of store."""

    kind: str
    """Kind of the folder, as its manifest names it."""

    ids: tuple[str, ...]
    """Columns of ids: a query's first, then documents'."""

    value: str
    """Column of the number, float32."""

    @property
    def keyed(self) -> pa.Schema:
        """Schema of rows without a value yet."""
        return pa.schema([*((name, pa.string()) for name in self.ids), ("key", pa.uint64())])

    @property
    def whole(self) -> pa.Schema:
        """Schema of a shard."""
        return pa.schema([*self.keyed, (self.value, pa.float32())])


SCORES = Form("scores", ("query_id", "doc_id"), "score")
PREFERENCES = Form("preferences", ("query_id", "doc_id", "other_id"), "log_p")
"""`log_p`: log probability that `doc_id` answers the query better than `other_id`, in nats."""


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """Rows of ids and keys as 64-bit numbers, by which they are compared with a store."""

    ids: Keys
    keys: Keys

    @classmethod
    def of(cls, rows: pa.Table, form: Form) -> "RowNumbers":
        """Return the numbers of rows with the columns of `form.keyed`."""
        return cls(row_ids(rows, form.ids), rows["key"].to_numpy())


def row_ids(rows: pa.Table, names: Sequence[str] = SCORES.ids) -> Keys:
    """Return 64 bits for the ids of each row, the same with the same pandas.

    A query's id comes first; two documents have the same bits in either order.
    """
    from pandas.util import hash_array

    sides = []
    for name in names:
        column = coded(rows[name])
        hashes = hash_array(column.dictionary.to_numpy(zero_copy_only=False), categorize=False)
        sides.append(hashes[column.indices.to_numpy()])
    if len(sides) > 2:
        sides[1:] = np.sort(np.stack(sides[1:]), axis=0)
    return reduce(mixed, sides)


def mixed(left: Keys, right: Keys) -> Keys:
    """Return 64 bits for each (left, right), in which their order counts.

    Two of a hundred million pairs share theirs with a chance of 3 in 10,000.
    """
    with np.errstate(over="ignore"):
        bits = left * np.uint64(0x9E3779B97F4A7C15) + right
        # The finaliser of splitmix64 (Steele et al. 2014), a bijection.
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixture: Keys = bits ^ (bits >> np.uint64(31))
    return mixture


def newest_rows(ids: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the position of the last row of each distinct id, in order."""
    _, last = np.unique(ids[::-1], return_index=True)
    positions: NDArray[np.int64] = np.sort(len(ids) - 1 - last)
    return positions


def newest_lists(
    queries: NDArray[np.generic], shards: NDArray[np.int64], has_value: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return for each row the last shard in which its query has a value, -1 if it has none."""
    _, codes = np.unique(queries, return_inverse=True)
    newest = np.full(len(codes), -1)
    np.maximum.at(newest, codes[has_value], shards[has_value])
    return newest[codes]
