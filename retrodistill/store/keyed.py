"""Stores of what teachers say of texts: keyed by the texts, written once, never lost.

A folder with

    manifest.json             the teacher's fingerprint, the scale, the collection last seen
    plans/NUMBER-ID.arrow     the rows that one command had to fill, in order
    shards/NUMBER-ID-STRETCH.parquet  ids, key and value: one stretch of a plan

A value belongs to a teacher (the store's) and to texts, whose hash is the `key`. Ids are only
names of texts: where a text has changed its values are withdrawn and asked for again, and where
texts that were asked about come back under other ids their value is copied.

A plan is written before its first shard, so a command that was killed finds the same stretches
again, skips those that are there, and ends with the table that it would have had. The same
command may run several times at once: each takes the stretches that nobody holds.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.errors import DataError
from retrodistill.manifest import FILE, Manifest, digest, write_once
from retrodistill.store.shards import (
    Form,
    claimed,
    newest_places,
    read_shard,
    row_ids,
    shard_paths,
    write_shard,
)
from retrodistill.types import Unit

WAIT = 0.5
"""Seconds between two looks at what other processes hold."""

TextKeys = Callable[[pa.Table], NDArray[np.uint64]]
"""Gives the key of the texts that the ids of each row name."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of a plan that is still to be filled."""

    path: Path
    rows: pa.Table
    """The ids and the key."""


class KeyedStore:
    """A folder of one teacher's numbers, of the form that a subclass names.

    Raises:
        DataError: the folder holds those of another teacher, or something else.

    """

    form: Form

    def __init__(
        self,
        folder: Path,
        *,
        teacher: str,
        inputs: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        if (self.folder / FILE).exists():
            self.manifest = Manifest.read(self.folder, kind=self.form.kind)
            found = self.manifest.inputs.get("teacher", "")
            if found != teacher:
                raise DataError(
                    f"{folder} holds {self.form.kind} of another teacher "
                    f"({found[:12]}..., not {teacher[:12]}...). Give another --out."
                )
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise DataError(
                f"{folder} is not empty and is no store of {self.form.kind}. Give another --out."
            )
        self.manifest = Manifest(
            kind=self.form.kind,
            fingerprint=digest(self.form.kind, teacher),
            inputs={"teacher": teacher, **(inputs or {})},
            config=config or {},
            details=details or {},
        )
        self.manifest.write(self.folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return the store of a folder, whatever its teacher.

        Raises:
            DataError: it is no such store.

        """
        manifest = Manifest.read(Path(folder), kind=cls.form.kind)
        return cls(folder, teacher=manifest.inputs.get("teacher", ""))

    @property
    def shards(self) -> list[Path]:
        """Finished shards, oldest first."""
        return shard_paths(self.folder)

    def adopt(self, collection: str, text_keys: TextKeys) -> int:
        """Withdraw the values of texts that are not in this collection any more; count them.

        `collection` is its fingerprint; `text_keys` gives 0 where an id is unknown. Nothing is
        read if the store has seen this collection last.
        """
        if self.manifest.inputs.get("collection") == collection:
            return 0
        stored = self._stored()
        stale: list[pa.Table] = [self.form.keyed.empty_table()]
        place = 0
        for path in self.shards:
            rows = read_shard(path, self.form.keyed.names)
            current = stored.is_newest[place : place + len(rows)]
            changed = current & (text_keys(rows) != rows["key"].to_numpy())
            stale.append(rows.filter(pa.array(changed)))
            place += len(rows)
        table = pa.concat_tables(stale)
        if len(table):
            self._write("withdrawn", table, np.full(len(table), np.nan))
        self.manifest = self.manifest.with_inputs(collection=collection)
        self.manifest.write(self.folder)
        return len(table)

    def plan(self, rows: pa.Table, *, shard_rows: int, unit: Unit = "pair") -> list[Shard]:
        """Return the shards that are to be filled, so that each row of ids and key has a value.

        Rows whose texts have a value under other ids are given that value at once.
        """
        rows = rows.cast(self.form.keyed)
        keys = rows["key"].to_numpy()
        ids = row_ids(rows, self.form.ids)
        name = digest(ids.tobytes(), keys.tobytes(), str(shard_rows), unit)[:16]
        stored = self._stored()
        left = stored.keys_of(ids) != keys
        if unit == "list":
            queries = rows["query_id"].combine_chunks().dictionary_encode().indices.to_numpy()
            left = np.isin(queries, queries[left])
        elif left.any():
            values = np.where(left, stored.values_of(keys), np.nan)
            known = ~np.isnan(values)
            if known.any():
                self._write(f"{name}-copied", rows.filter(pa.array(known)), values[known])
                left &= ~known
        if not left.any():
            return []
        todo = rows.filter(pa.array(left))
        return self.unfinished(name, ids[left]) or self._planned(name, todo, shard_rows, unit)

    def unfinished(self, name: str = "", wanted: NDArray[np.uint64] | None = None) -> list[Shard]:
        """Return what is left of the plans that were interrupted, in their own stretches.

        `name` chooses the plans of one command, of which the newest counts; `wanted` are the
        rows to keep, for others may have been filled since.
        """
        paths = sorted((self.folder / "plans").glob(f"*-{name or '*'}.arrow"))
        shards = []
        for path in paths[-1:] if name else paths:
            plan = _from_arrow(path)
            for number, (start, end) in enumerate(_stretches(plan)):
                shard = self._shard(path.stem, number)
                if not shard.exists():
                    rows = plan.slice(start, end - start)
                    if wanted is not None:
                        ids = row_ids(rows, self.form.ids)
                        rows = rows.filter(pa.array(np.isin(ids, wanted)))
                    if len(rows):
                        shards.append(Shard(shard, rows))
        return shards

    def claim(self, shards: list[Shard]) -> Iterator[Shard]:
        """Yield the shards one by one, each while no other process holds it.

        What others hold is waited for, and taken over if they die.
        """
        while shards:
            idle = True
            for shard in shards:
                with claimed(shard.path) as mine:
                    if mine and not shard.path.exists():
                        idle = False
                        yield shard
            shards = [shard for shard in shards if not shard.path.exists()]
            if shards and idle:
                time.sleep(WAIT)

    def commit(self, shard: Shard, values: NDArray[np.float32], *, seconds: float = 0.0) -> None:
        """Write a shard's values, whole or not at all.

        Raises:
            DataError: a value is NaN or infinite; the first such row is named.

        """
        values = np.asarray(values)
        if values.shape != (len(shard.rows),) or values.dtype != np.float32:
            raise DataError(
                f"the teacher must give {len(shard.rows)} float32 numbers, one a row, but gave "
                f"{values.dtype} of shape {values.shape}."
            )
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            row = shard.rows.slice(int(bad[0]), 1).to_pylist()[0]
            words = ("query", "document", "document")
            named = " and ".join(
                f"{word} {row[name]!r}" for word, name in zip(words, self.form.ids, strict=False)
            )
            raise DataError(
                f"the teacher's {self.form.value} of {named} is {values[bad[0]]} "
                f"({len(bad):,} such in this shard). Nothing of the shard was stored. "
                "Try --precision float32, or another teacher."
            )
        table = shard.rows.append_column(self.form.value, pa.array(values))
        write_shard(shard.path, table, self.form, {"seconds": f"{seconds:.3f}"})

    def _write(self, name: str, rows: pa.Table, values: NDArray[np.float64]) -> None:
        """Write rows that no teacher is asked about; NaN withdraws a row."""
        column = pa.array(values, pa.float32(), from_pandas=True)
        path = self._shard(f"{self._next_number():06d}-{name}", 0)
        write_shard(path, rows.append_column(self.form.value, column), self.form, {})

    def _planned(self, name: str, todo: pa.Table, shard_rows: int, unit: Unit) -> list[Shard]:
        """Write a new plan, or take the one that another process has just written."""
        if unit == "document":
            docs = todo["doc_id"].combine_chunks().dictionary_encode().indices.to_numpy()
            todo = todo.take(np.argsort(docs, kind="stable"))
        todo = todo.replace_schema_metadata({"shard_rows": str(shard_rows), "unit": unit})
        path = self.folder / "plans" / f"{self._next_number():06d}-{name}.arrow"
        if not write_once(path, _to_arrow(todo)):
            todo = _from_arrow(path)
        return [
            Shard(self._shard(path.stem, number), todo.slice(start, end - start))
            for number, (start, end) in enumerate(_stretches(todo))
        ]

    def _shard(self, plan: str, number: int) -> Path:
        return self.folder / "shards" / f"{plan}-{number:06d}.parquet"

    def _next_number(self) -> int:
        paths = [*(self.folder / "plans").glob("*.arrow"), *self.shards]
        return 1 + max((int(path.name[:6]) for path in paths), default=0)

    def _stored(self) -> "_Stored":
        ids, keys = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        values = [np.empty(0, np.float64)]
        for path in self.shards:
            rows = read_shard(path, self.form.whole.names)
            ids.append(row_ids(rows, self.form.ids))
            keys.append(rows["key"].to_numpy())
            values.append(rows[self.form.value].to_numpy().astype(np.float64))  # none: NaN
        return _Stored(np.concatenate(ids), np.concatenate(keys), np.concatenate(values))


@dataclass(frozen=True, eq=False)
class _Stored:
    """What is in a store's shards, oldest first, by numbers: 24 bytes a row."""

    ids: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    values: NDArray[np.float64]

    @cached_property
    def is_newest(self) -> NDArray[np.bool_]:
        """Whether a row is the last of its ids, and has a value."""
        newest = np.zeros(len(self.ids), np.bool_)
        newest[newest_places(self.ids)] = True
        return newest & ~np.isnan(self.values)

    def keys_of(self, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the key of the texts that each row has a value for now, 0 if it has none."""
        places = _places(self.ids[self.is_newest], ids)
        keys = np.zeros(len(ids), np.uint64)
        keys[places >= 0] = self.keys[self.is_newest][places[places >= 0]]
        return keys

    def values_of(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Return the value that these texts were ever given, NaN where there is none."""
        given = ~np.isnan(self.values)
        places = _places(self.keys[given], keys)
        values = np.full(len(keys), np.nan)
        values[places >= 0] = self.values[given][places[places >= 0]]
        return values


def _places(table: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return where each value stands in the table, or -1."""
    if not len(table):
        return np.full(len(wanted), -1)
    order = np.argsort(table, kind="stable")
    places = order[np.searchsorted(table, wanted, sorter=order).clip(max=len(table) - 1)]
    return np.where(table[places] == wanted, places, -1)


def _stretches(plan: pa.Table) -> list[tuple[int, int]]:
    """Return where each stretch of a plan starts and ends; a list of candidates is never cut."""
    shard_rows = int(plan.schema.metadata[b"shard_rows"])
    if plan.schema.metadata[b"unit"] != b"list":
        starts = range(0, len(plan), shard_rows)
        return [(start, min(start + shard_rows, len(plan))) for start in starts]
    queries = plan["query_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    bounds = [*np.flatnonzero(np.diff(queries, prepend=-1)).tolist(), len(plan)]
    cuts = [0]
    for end in bounds[1:]:
        if end - cuts[-1] >= shard_rows or end == len(plan):
            cuts.append(end)
    return list(pairwise(cuts))


def _to_arrow(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue().to_pybytes())


def _from_arrow(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} is damaged ({error}). Delete this file and run the same command again."
        ) from error
