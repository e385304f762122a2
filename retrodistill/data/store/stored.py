"""The rows of a store's shards as numbers, from which a plan is made without any text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.manifest import digest
from retrodistill.data.store.form import Form, Keys, mixed, newest_lists, newest_rows, row_ids
from retrodistill.data.store.shards import read_shard


@dataclass(frozen=True, eq=False)
class Stored:
    """The rows of a store, oldest first: 24 bytes a row, or 40 where lists count."""

    paths: Sequence[Path]
    """The shards that were read."""

    sizes: NDArray[np.int64]
    """Rows of each."""

    ids: Keys
    keys: Keys
    values: NDArray[np.float32]
    """NaN where a row withdraws an earlier one."""

    queries: Keys | None = None
    """Of each row, in a store of lists only."""

    @classmethod
    def read(cls, paths: Sequence[Path], form: Form, *, lists: bool) -> "Stored":
        """Read shards.

        Raises:
            DataError: one is damaged.

        """
        ids, keys, queries = ([np.empty(0, np.uint64)] for _ in range(3))
        values = [np.empty(0, np.float32)]
        for path in paths:
            rows = read_shard(path, form)
            ids.append(row_ids(rows, form.ids))
            keys.append(rows["key"].to_numpy())
            values.append(rows[form.value].to_numpy())
            if lists:
                queries.append(row_ids(rows, form.ids[:1]))
        return cls(
            paths,
            np.array([len(shard_ids) for shard_ids in ids[1:]], np.int64),
            np.concatenate(ids),
            np.concatenate(keys),
            np.concatenate(values),
            np.concatenate(queries) if lists else None,
        )

    @cached_property
    def has_value(self) -> NDArray[np.bool_]:
        """Whether a row has a value."""
        return ~np.isnan(self.values)

    @cached_property
    def shards(self) -> NDArray[np.int64]:
        """The shard of each row."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @cached_property
    def is_current(self) -> NDArray[np.bool_]:
        """Whether a row is the last of its ids, has a value, and is of its query's last list."""
        current = np.zeros(len(self.ids), np.bool_)
        current[newest_rows(self.ids)] = True
        current &= self.has_value
        if self.queries is not None:
            current &= self.shards == newest_lists(self.queries, self.shards, self.has_value)
        return current

    def keys_of(self, ids: Keys) -> Keys:
        """Return the key of the texts that each row has a value for now, 0 if it has none."""
        positions = _positions(self.ids[self.is_current], ids)
        keys = np.zeros(len(ids), np.uint64)
        keys[positions >= 0] = self.keys[self.is_current][positions[positions >= 0]]
        return keys

    def values_of(self, keys: Keys) -> NDArray[np.float32]:
        """Return the value that these texts were ever given, NaN where there is none."""
        positions = _positions(self.keys[self.has_value], keys)
        values = np.full(len(keys), np.nan, np.float32)
        values[positions >= 0] = self.values[self.has_value][positions[positions >= 0]]
        return values

    def has_list_since(self, path: Path, queries: Keys) -> NDArray[np.bool_]:
        """Return which queries have a list in a shard that counts as newer than this one."""
        assert self.queries is not None
        is_later = self.shards >= np.searchsorted([shard.name for shard in self.paths], path.name)
        return np.isin(queries, self.queries[is_later & self.has_value])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the current rows, independent of the order in which they were written."""
        current = self.is_current
        values = self.values[current].view(np.uint32).astype(np.uint64)
        rows = mixed(mixed(self.ids[current], self.keys[current]), values)
        return digest(np.sort(rows).tobytes())


def _positions(table: Keys, requested: Keys) -> NDArray[np.int64]:
    """Return the position of each requested value in the table, or -1."""
    if not len(table):
        return np.full(len(requested), -1)
    order = np.argsort(table, kind="stable")
    nearest = np.searchsorted(table, requested, sorter=order).clip(max=len(table) - 1)
    positions = order[nearest]
    return np.where(table[positions] == requested, positions, -1)
