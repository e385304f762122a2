"""Plans of a store: the rows that one command has to fill, in order, cut into stretches.

A file is a table in Arrow's format and a SHA-256 of it: a changed byte is noticed before Arrow,
which trusts what it reads, can follow it.
"""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically
from retrodistill.base.types import Unit
from retrodistill.data.store.columns import codes

DIGEST = hashlib.sha256().digest_size


def plan_paths(folder: Path, name: str = "*") -> list[Path]:
    """Return the plans of a store, oldest first: all, or those of one name."""
    return sorted((folder / "plans").glob(f"*-{name}.plan"))


def write_plan(path: Path, rows: pa.Table, *, shard_rows: int, unit: Unit) -> pa.Table:
    """Write a plan, whole or not at all, and return it with its settings."""
    rows = rows.replace_schema_metadata({"shard_rows": str(shard_rows), "unit": unit})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    content = memoryview(sink.getvalue())
    write_atomically(path, b"".join((content, hashlib.sha256(content).digest())))
    return rows


def read_plan(path: Path) -> pa.Table:
    """Return the rows of a plan; the schema's metadata are its settings.

    Raises:
        DataError: the file is truncated or changed.

    """
    with pa.memory_map(str(path)) as file:
        content = file.read_buffer()
    table, checksum = content[:-DIGEST], content[-DIGEST:]
    if len(content) <= DIGEST or hashlib.sha256(table).digest() != checksum.to_pybytes():
        raise DataError(
            f"{path} is damaged. Delete this file and run the same command again: what has been "
            "scored is kept."
        )
    return pa.ipc.open_file(pa.BufferReader(table)).read_all()


def stretches(plan: pa.Table) -> list[tuple[int, int]]:
    """Return where each stretch of a plan starts and ends; a list of candidates is never cut."""
    shard_rows = int(plan.schema.metadata[b"shard_rows"])
    if plan.schema.metadata[b"unit"] != b"list":
        starts = range(0, len(plan), shard_rows)
        return [(start, min(start + shard_rows, len(plan))) for start in starts]
    bounds = [*np.flatnonzero(np.diff(codes(plan["query_id"]), prepend=-1)).tolist(), len(plan)]
    cuts = [0]
    for end in bounds[1:]:
        if end - cuts[-1] >= shard_rows or end == len(plan):
            cuts.append(end)
    return list(pairwise(cuts))
