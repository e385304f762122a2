"""Shards of a store: Parquet files that appear whole or not at all, one worker at each.

A later row of the same ids replaces an earlier one, and a row without a value withdraws it, so a
store is only ever added to. Shards are read in the order of their names. Where a score depends on
the other candidates of its query, a query's later list replaces its earlier one as a whole.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically
from retrodistill.data.store.columns import narrow
from retrodistill.data.store.form import Form, newest_lists, newest_rows, row_ids
from retrodistill.data.store.locks import claimed

WAIT = 0.5
"""Seconds between two looks at what other processes hold."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows that are still to be given a value, and the file for them."""

    path: Path
    form: Form
    rows: pa.Table
    """The ids and the key."""

    claimed_at: float | None = None
    """When this process began with it, on its performance counter."""

    def write(self, values: NDArray[np.float32]) -> None:
        """Write the shard with these values, whole or not at all.

        Raises:
            DataError: a value is NaN or infinite; the first such row is named.

        """
        values = np.asarray(values)
        if values.shape != (len(self.rows),) or values.dtype != np.float32:
            raise DataError(
                f"the teacher must give {len(self.rows)} float32 numbers, one a row, but gave "
                f"{values.dtype} of shape {values.shape}."
            )
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            row = self.rows.slice(int(bad[0]), 1).to_pylist()[0]
            nouns = ("query", "document", "document")
            names = " and ".join(
                f"{noun} {row[column]!r}"
                for noun, column in zip(nouns, self.form.ids, strict=False)
            )
            raise DataError(
                f"the teacher's {self.form.value} of {names} is {values[bad[0]]} "
                f"({len(bad):,} of this shard's {len(values):,} are NaN or infinite). Nothing of "
                "the shard was stored. Try --precision float32, or another teacher."
            )
        seconds = 0.0 if self.claimed_at is None else time.perf_counter() - self.claimed_at
        table = self.rows.append_column(self.form.value, pa.array(values))
        write_shard(self.path, table, self.form, {"seconds": f"{seconds:.3f}"})


def claim(shards: list[Shard]) -> Iterator[Shard]:
    """Yield the shards one by one, each while no other process holds it.

    Shards that other processes hold are waited for, and taken over if those processes die.
    """
    while shards:
        idle = True
        for shard in shards:
            with claimed(shard.path) as is_ours:
                if is_ours and not shard.path.exists():
                    idle = False
                    yield replace(shard, claimed_at=time.perf_counter())
        shards = [shard for shard in shards if not shard.path.exists()]
        if shards and idle:
            time.sleep(WAIT)


def shard_paths(folder: Path) -> list[Path]:
    """Return the finished shards of a store, oldest first."""
    return sorted((folder / "shards").glob("*.parquet"))


def shard_path(folder: Path, plan: str, stretch: int = 0) -> Path:
    """Return the file for a stretch of a plan: `shards/NUMBER-ID-STRETCH.parquet`."""
    return folder / "shards" / f"{plan}-{stretch:06d}.parquet"


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
        "only its rows are recomputed."
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
    has_value = table[form.value].is_valid().to_numpy()
    if lists:
        shards = np.repeat(np.arange(len(tables)), [len(shard) for shard in tables])
        queries = row_ids(table, form.ids[:1])
        has_value &= shards == newest_lists(queries, shards, has_value)
    is_current = np.zeros(len(table), np.bool_)
    is_current[newest_rows(row_ids(table, form.ids))] = True
    is_current &= has_value
    return table if is_current.all() else table.filter(pa.array(is_current))
