"""Stores of teachers' numbers: keyed by the texts, written once, never lost.

A folder with

    manifest.json             the teacher's fingerprint, the scale, what the last command read
    plans/NUMBER-ID.plan      the rows that one command had to fill, in order
    shards/NUMBER-ID-STRETCH.parquet  ids, key and value: one stretch of a plan

A value belongs to a teacher (the store's) and to what it reads of the texts, whose hash is the
`key`. Ids are only names of texts, unless the teacher answers by id: where a text has changed its
values are withdrawn and computed again, and where known texts come back under other ids their
value is copied.

A plan is written before its first shard, so a command that was killed finds the same stretches
again, skips those that are finished, and ends with the table that it would have had. The same
command may run several times at once: each takes the stretches that no other holds.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.base.manifest import FILE, Manifest, digest
from retrodistill.base.types import Unit
from retrodistill.data.store.form import Form, RowNumbers, TextKeys, row_ids
from retrodistill.data.store.lineage import KEY, Lineage, lineage_in
from retrodistill.data.store.locks import locked
from retrodistill.data.store.plans import Plans
from retrodistill.data.store.shards import Shard, read_shard, shard_paths
from retrodistill.data.store.stored import Stored

TYPES = ("float32", "bfloat16")
"""Number types of --precision."""


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
        self.plans = Plans(self.folder, self.form)
        if not (self.folder / FILE).exists():
            self._refuse_strange_files()
            with self._lock():
                if not (self.folder / FILE).exists():
                    Manifest(
                        kind=self.form.kind,
                        fingerprint=digest(self.form.kind, teacher),
                        inputs={"teacher": teacher, **(inputs or {})},
                        config=config or {},
                        details=details or {},
                    ).write(self.folder)
        self.manifest = Manifest.read(self.folder, kind=self.form.kind)
        self.check_teacher(teacher, config or {})
        self.fingerprint = self.manifest.fingerprint
        """Hash of the rows, as of the last plan that found nothing missing."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return the existing store of a folder, of any teacher.

        Raises:
            DataError: it is not such a store.

        """
        manifest = Manifest.read(Path(folder), kind=cls.form.kind)
        return cls(folder, teacher=manifest.inputs.get("teacher", ""))

    @property
    def lineage(self) -> Lineage:
        """What the teacher, and the systems that found the candidates, were trained on."""
        return lineage_in(self.folder, self.manifest)

    def join_lineage(self, lineage: Lineage) -> None:
        """Record what a teacher and candidates were trained on, beside what is recorded already."""
        with self._lock():
            manifest = Manifest.read(self.folder, kind=self.form.kind)
            fresh = KEY not in manifest.details and not self.shards
            recorded = Lineage() if fresh else lineage_in(self.folder, manifest)
            if fresh or recorded | lineage != recorded:
                noted = (recorded | lineage).write(self.folder)
                manifest = replace(manifest, details={**manifest.details, **noted})
                manifest.write(self.folder)
            self.manifest = manifest

    @property
    def shards(self) -> list[Path]:
        """Finished shards, oldest first."""
        return shard_paths(self.folder)

    @property
    def lists(self) -> bool:
        """Whether a value depends on the other candidates, so that a query's last list counts."""
        return self.manifest.details.get("unit") == "list"

    def check_teacher(self, teacher: str, config: Mapping[str, Any]) -> None:
        """Raise DataError if the store's values are another teacher's; `config` may explain why."""
        stored = self.manifest.inputs.get("teacher", "")
        if stored == teacher:
            return
        begun, now = (c.get("precision") for c in (self.manifest.config, config))
        hint = "Give another --out."
        if begun in TYPES and now in TYPES and begun != now:
            hint = f"It was begun with --precision {begun}: give that, or another --out."
        elif begun == "auto" and now in TYPES:  # by an earlier version, perhaps elsewhere
            other_type = TYPES[1 - TYPES.index(now)]
            hint = (
                "If it was begun on another machine, give --precision "
                f"{other_type}, else another --out."
            )
        raise DataError(
            f"{self.folder} holds {self.form.kind} of another teacher "
            f"({stored[:12]}..., not {teacher[:12]}...). {hint}"
        )

    def adopt(self, collection: str, text_keys: TextKeys) -> int:
        """Withdraw the values of texts that are not in this collection any more; count them.

        `collection` is its fingerprint; `text_keys` gives 0 where an id is unknown. Nothing is
        read if the store has seen this collection last.
        """
        with self._lock():
            self.manifest = Manifest.read(self.folder, kind=self.form.kind)
            if self.manifest.inputs.get("collection") == collection:
                return 0
            stored = self._stored()
            stale: list[pa.Table] = [self.form.keyed.empty_table()]
            ends = np.cumsum(stored.sizes)
            for path, start, end in zip(stored.paths, ends - stored.sizes, ends, strict=True):
                rows = read_shard(path, self.form).select(self.form.keyed.names)
                changed = text_keys(rows) != rows["key"].to_numpy()
                changed &= stored.is_current[start:end]
                stale.append(rows.filter(pa.array(changed)))
            table = pa.concat_tables(stale)
            if len(table):
                withdrawn = np.full(len(table), np.nan, np.float32)
                self.plans.write_unplanned("withdrawn", table, withdrawn)
            self.manifest = self.manifest.with_inputs(collection=collection)
            self.manifest.write(self.folder)
            return len(table)

    def plan(self, rows: pa.Table, *, shard_rows: int, unit: Unit = "pair") -> list[Shard]:
        """Return the shards that are to be filled, so that each row of ids and key has a value.

        Rows whose texts have a value under other ids are given that value at once.
        """
        rows = rows.select(self.form.keyed.names)
        numbers = RowNumbers.of(rows, self.form)
        name = digest(numbers.ids.tobytes(), numbers.keys.tobytes(), str(shard_rows), unit)[:16]
        while True:
            stored = self._stored()
            missing = stored.keys_of(numbers.ids) != numbers.keys
            if not missing.any():
                self.fingerprint = stored.fingerprint
                return []
            if unit == "list":
                queries = row_ids(rows, self.form.ids[:1])
                missing = np.isin(queries, queries[missing])
            else:
                values = np.where(missing, stored.values_of(numbers.keys), np.float32(np.nan))
                copied = ~np.isnan(values)
                if copied.any():
                    copies = rows.filter(pa.array(copied))
                    self.plans.write_unplanned(f"{name}-copied", copies, values[copied])
                    continue
            todo = rows.filter(pa.array(missing))
            with self._lock():
                shards = self.plans.resumed(name, todo, stored, unit)
                if shards:
                    return shards
                # Shards of this very plan that others have finished since need no second plan.
                since = set(self.shards).difference(stored.paths)
                if not any(f"-{name}-" in path.name for path in since):
                    return self.plans.add(name, todo, shard_rows=shard_rows, unit=unit)

    def rows_left(self) -> int:
        """Return how many rows of started plans have no value yet."""
        planned = [row_ids(shard.rows, self.form.ids) for shard in self.plans.unfinished()]
        ids = np.unique(np.concatenate([np.empty(0, np.uint64), *planned]))
        stored = self._stored()
        return len(np.setdiff1d(ids, stored.ids[stored.is_current]))

    def record(self, *, candidates: str, config: Mapping[str, Any] | None) -> None:
        """Write into the manifest the store's content, last candidates and settings."""
        with self._lock():
            manifest = Manifest.read(self.folder, kind=self.form.kind)
            names = (
                *manifest.details.get("earlier_candidates", ()),
                manifest.inputs.get("candidates", ""),
            )
            earlier = [name for name in dict.fromkeys(names) if name not in (candidates, "")]
            self.manifest = replace(
                manifest.with_inputs(candidates=candidates),
                fingerprint=self.fingerprint,
                config=config or manifest.config,
                details={**manifest.details, "earlier_candidates": earlier},
            )
            if self.manifest != manifest:
                self.manifest.write(self.folder)

    def _refuse_strange_files(self) -> None:
        """Raise DataError if the folder has files that are not of a store being begun."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.exists() else []
        strange = [name for name in names if name != "locks" and not name.startswith(f".{FILE}.")]
        if strange and not (self.folder / FILE).exists():
            raise DataError(
                f"{self.folder} is not empty and not a store of {self.form.kind}: it has "
                f"{strange[0]}. Give another --out."
            )

    def _lock(self) -> AbstractContextManager[None]:
        """Hold what only one process at a time may do: begin the store, plan, change a manifest."""
        return locked(self.folder / "locks" / "store")

    def _stored(self) -> Stored:
        return Stored.read(self.shards, self.form, lists=self.lists)
