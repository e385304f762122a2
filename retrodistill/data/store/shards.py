"""Shards of a store: Parquet files that appear whole or not at all, one worker at each.

A later row of the same ids replaces an earlier one, and a row without a value withdraws it, so a
store is only ever added to. Shards are read in the order of their names. Where a score depends on
the other candidates of its query, a query's later list replaces its earlier one as a whole.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically
from retrodistill.data.store.columns import coded, narrow


@dataclass(frozen=True, slots=True)
class Form:
    """What a row of a store is: ids of texts, the key of these texts, and a teacher's number."""

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


def shard_paths(folder: Path) -> list[Path]:
    """Return the finished shards of a store, oldest first."""
    return sorted((folder / "shards").glob("*.parquet"))


def write_shard(path: Path, table: pa.Table, form: Form, details: Mapping[str, str]) -> None:
    """Write a shard, with checksums over its pages; `details` go into the file's metadata."""
    table = narrow(table, form.whole).replace_schema_metadata(dict(details))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_atomically(path, sink.getvalue().to_pybytes())


def read_shard(path: Path, form: Form) -> pa.Table:
    """Return a shard's rows; its `details` are the schema's metadata.

    Raises:
        DataError: the file is truncated, changed, or not a shard of this form.

    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=form.whole.names).cast(form.whole)
        if any(table[name].null_count for name in form.keyed.names):
            raise pa.ArrowInvalid("an id or a key is missing")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise damaged(path, error) from error
    return table


def damaged(path: Path, error: Exception) -> DataError:
    """Return the error that names a damaged shard, and what to do about it."""
    return DataError(
        f"{path} is damaged ({error}). Delete this file and run the same command again: "
        "only its rows are made again."
    )


def shard_seconds(path: Path) -> float:
    """Return how long the teacher took for a shard.

    Raises:
        DataError: the file is damaged.

    """
    try:
        return float((pq.read_schema(path).metadata or {}).get(b"seconds", 0))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def current_rows(folder: Path, form: Form, *, lists: bool = False) -> pa.Table:
    """Return a store's rows: the newest of each ids, without those that are withdrawn.

    In a store of `lists`, only those of each query's newest list.

    Raises:
        DataError: there is no shard yet, or one is damaged.

    """
    tables = [read_shard(path, form) for path in shard_paths(folder)]
    if not tables:
        raise DataError(f"{folder} has no shard yet. Run `retrodistill.score` to its end.")
    table = pa.concat_tables(tables)
    valued = table[form.value].is_valid().to_numpy()
    if lists:
        shards = np.repeat(np.arange(len(tables)), [len(part) for part in tables])
        queries = row_ids(table, form.ids[:1])
        valued &= shards == newest_lists(queries, shards, valued)
    current = np.zeros(len(table), np.bool_)
    current[newest_places(row_ids(table, form.ids))] = True
    current &= valued
    return table if current.all() else table.filter(pa.array(current))


def newest_lists(
    queries: NDArray[np.generic], shards: NDArray[np.int64], valued: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return for each row the last shard in which its query has a value, -1 if it has none."""
    _, places = np.unique(queries, return_inverse=True)
    newest = np.full(len(places), -1)
    np.maximum.at(newest, places[valued], shards[valued])
    return newest[places]


def newest_places(ids: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the place of the last row of each distinct id, in order."""
    _, last = np.unique(ids[::-1], return_index=True)
    places: NDArray[np.int64] = np.sort(len(ids) - 1 - last)
    return places


def row_ids(rows: pa.Table, names: Sequence[str] = SCORES.ids) -> NDArray[np.uint64]:
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


def mixed(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 bits for each (left, right), in which their order counts.

    Two of a hundred million pairs share theirs with a chance of 3 in 10,000.
    """
    with np.errstate(over="ignore"):
        value = left * np.uint64(0x9E3779B97F4A7C15) + right
        # The finaliser of splitmix64 (Steele et al. 2014), a bijection.
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return found


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a file that is still to be written; gives False if another process holds it.

    The system lets go of what a killed process held. The locks lie in a folder beside the file's.
    """
    lock = path.parent.with_name("locks") / path.parent.name / path.name
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        lock.unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file, once no other process does."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
