"""Plans of a store: the rows that one command has to fill, in order, cut into stretches.

A file is a table in Arrow's format and a SHA-256 of it: a changed byte is noticed before Arrow,
which trusts what it reads, can follow it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.files import new_file
from retrodistill.base.manifest import digest_file
from retrodistill.base.types import Unit
from retrodistill.data.store.columns import codes, widened
from retrodistill.data.store.form import Form, row_ids
from retrodistill.data.store.shards import Shard, shard_path, shard_paths, write_shard
from retrodistill.data.store.stored import Stored

DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans of a store's folder, and the shards that they still lack."""

    folder: Path
    form: Form

    def paths(self, name: str = "*") -> list[Path]:
        """Return the plan files, oldest first: all, or those of one name."""
        return sorted((self.folder / "plans").glob(f"[0-9]*-{name}.plan"))

    def next_number(self) -> int:
        """Return the number that a new plan, or a shard without a plan, begins with."""
        paths = [*self.paths(), *shard_paths(self.folder)]
        return 1 + max((int(path.name[:6]) for path in paths), default=0)

    def write_unplanned(self, name: str, rows: pa.Table, values: NDArray[np.float32]) -> None:
        """Write rows that no teacher is asked about as a shard; NaN withdraws a row."""
        column = pa.array(values, pa.float32(), from_pandas=True)
        path = shard_path(self.folder, f"{self.next_number():06d}-{name}")
        write_shard(path, rows.append_column(self.form.value, column), self.form, {})

    def unfinished(self, name: str = "*") -> Iterator[Shard]:
        """Yield the missing shards of the plans that were interrupted.

        `name` chooses the plans of one command, of which the newest counts.
        """
        paths = self.paths(name)
        for path in paths if name == "*" else paths[-1:]:
            plan = read_plan(path)
            for number, (start, end) in enumerate(stretches(plan)):
                shard = shard_path(self.folder, path.stem, number)
                if not shard.exists():
                    yield Shard(shard, self.form, plan.slice(start, end - start))

    def resumed(self, name: str, missing: pa.Table, stored: Stored, unit: Unit) -> list[Shard]:
        """Return the unfinished shards of a command's plan, with the missing rows only."""
        columns = self.form.ids[:1] if unit == "list" else self.form.ids
        missing_ids = row_ids(missing, columns)
        shards = []
        for shard in self.unfinished(name):
            ids = row_ids(shard.rows, columns)
            needed = np.isin(ids, missing_ids)
            if unit == "list":  # a list below a newer list of its query would not count
                needed &= ~stored.has_list_since(shard.path, ids)
            if needed.any():
                rows = shard.rows.filter(pa.array(needed))
                shards.append(Shard(shard.path, self.form, rows))
        return shards

    def add(self, name: str, missing: pa.Table, *, shard_rows: int, unit: Unit) -> list[Shard]:
        """Write a new plan for the missing rows, and return its shards."""
        if unit == "document":
            order = np.argsort(codes(missing["doc_id"]), kind="stable")
            missing = pa.table(
                [widened(column) for column in missing.columns[:-1]] + missing.columns[-1:],
                names=missing.column_names,
            ).take(order)
        path = self.folder / "plans" / f"{self.next_number():06d}-{name}.plan"
        plan = write_plan(path, missing, shard_rows=shard_rows, unit=unit)
        return [
            Shard(
                shard_path(self.folder, path.stem, number),
                self.form,
                plan.slice(start, end - start),
            )
            for number, (start, end) in enumerate(stretches(plan))
        ]


def write_plan(path: Path, rows: pa.Table, *, shard_rows: int, unit: Unit) -> pa.Table:
    """Write a plan, whole or not at all, and return it with its settings."""
    rows = rows.replace_schema_metadata({"shard_rows": str(shard_rows), "unit": unit})
    with new_file(path) as aside:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)  # into the file: a plan may have a hundred million rows
        checksum = bytes.fromhex(digest_file(aside))
        with aside.open("ab") as stream:
            stream.write(checksum)
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
            f"{path} is damaged. Delete this file and run the same command again: finished shards "
            "are kept."
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
