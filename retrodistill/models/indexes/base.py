"""What every index of vectors shares: string ids, input validation, filters, ties, and files."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import write_atomically
from retrodistill.base.manifest import digest_file
from retrodistill.models.indexes.planning import Plan, Where, grouped
from retrodistill.models.indexes.validation import (
    check_attributes,
    check_dimension,
    checked_deletions,
    checked_documents,
    checked_queries,
    matrix_of,
    no_attributes,
)

if TYPE_CHECKING:
    from retrodistill.data.filters import Attributes, Expression

DETAILS = "index.json"
IDS = "ids.arrow"
ATTRIBUTES = "attributes.arrow"

MASKS = 64
"""Conditions whose rows are remembered from one search to the next."""

Mask = NDArray[np.bool_]
Rows = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and row numbers, both of shape (queries, k); row -1 means that nothing was found."""


@dataclass(frozen=True, eq=False)
class Allowed:
    """The rows that may be found; what is counted of them is counted once."""

    mask: Mask
    deleted_only: bool
    """Whether nothing but deleted rows is excluded."""

    @cached_property
    def count(self) -> int:
        """How many rows they are."""
        return int(np.count_nonzero(self.mask))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Their numbers, ascending; not remembered, for they take eight bytes each."""
        return np.flatnonzero(self.mask)

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """The mask as bits, the lowest first."""
        return np.packbits(self.mask, bitorder="little")


class VectorIndex(ABC):
    """String ids and attributes over an engine that knows row numbers only.

    A kind of index says how its engine adds, searches, writes and reads. Ids are unique, opaque
    strings. Documents of equal score come in descending order of their ids. A deleted row stays
    in the engine and is never found again.
    """

    kind: ClassVar[str]
    vectors_file: ClassVar[str]

    def __init__(self, dimension: int, argument: str = "") -> None:
        check_dimension(dimension)
        if argument:
            raise ConfigError(f"an index of kind {self.kind!r} takes no argument: {argument!r}.")
        self.dimension = dimension
        self._ids: list[str] = []
        self._names = np.empty(0, object)  # the same, made when it is first needed
        self._rows: dict[str, int] = {}
        self._deleted = np.zeros(0, np.bool_)
        self._attributes: Attributes | None = None
        self._masks: dict[Expression | None, Allowed | None] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id: object) -> bool:
        return id in self._rows

    @property
    def ids(self) -> list[str]:
        """The ids of all documents, in the order of their rows."""
        return list(self._rows)

    @property
    def deleted_rows(self) -> int:
        """Rows of deleted and replaced documents, which the engine holds until it is made again."""
        return len(self._ids) - len(self._rows)

    @abstractmethod
    def _add(self, vectors: NDArray[np.float32]) -> None:
        """Append checked, contiguous vectors to the engine."""

    @abstractmethod
    def _search(self, queries: NDArray[np.float32], k: int, allowed: Allowed | None) -> Rows:
        """Return the best `k` of the allowed rows for each query, best first.

        At least `k` rows are allowed (None: all), and that many are found.
        """

    @abstractmethod
    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of some ascending rows, as exact as the engine knows them."""

    @abstractmethod
    def _write(self, path: Path) -> None:
        """Write the engine's vectors into a file."""

    @abstractmethod
    def _read(self, path: Path) -> None:
        """Take the engine's vectors from a file whose checksum is right."""

    @classmethod
    @abstractmethod
    def bytes_per_vector(cls, dimension: int) -> int:
        """Return about how many bytes of memory a vector takes, without its id."""

    def train(self, vectors: NDArray[np.float32], total: int) -> None:
        """Learn from a sample of the `total` vectors that will be added, if this kind learns."""
        matrix_of(vectors, self.dimension, "the sample")

    def _settings(self) -> dict[str, Any]:
        """Return the keyword arguments that make this index again."""
        return {}

    def add(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        attributes: "pa.Table | None" = None,
    ) -> None:
        """Add vectors of shape (len(ids), dimension), and a row of attributes for each.

        Raises:
            DataError: an id that is a duplicate or no string, a wrong shape, NaN or infinity,
                attributes that do not fit the ones before; nothing is added then.

        """
        ids = list(ids)
        self._append(ids, checked_documents(ids, vectors, self.dimension, self._rows), attributes)

    def replace(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        attributes: "pa.Table | None" = None,
    ) -> int:
        """Add documents, in place of those with the same ids; return how many were replaced.

        Raises:
            DataError: as `add` does, but for ids that the index holds; nothing is changed then.

        """
        ids = list(ids)
        checked = checked_documents(ids, vectors, self.dimension, ())
        replaced = [id for id in ids if id in self._rows]
        self._append(ids, checked, attributes, replaced=replaced)
        return len(replaced)

    def _append(
        self,
        ids: list[str],
        vectors: NDArray[np.float32],
        attributes: "pa.Table | None",
        *,
        replaced: Sequence[str] = (),
    ) -> None:
        """Add checked vectors, and delete the rows of those that they replace."""
        joined = self._joined(attributes, len(ids))
        deleted = np.concatenate([self._deleted, np.zeros(len(ids), np.bool_)])
        self._add(vectors)
        deleted[[self._rows.pop(id) for id in replaced]] = True
        self._attributes, self._deleted = joined, deleted
        self._rows.update(zip(ids, range(len(self._ids), len(self._ids) + len(ids)), strict=True))
        self._ids.extend(ids)
        self._masks.clear()

    def delete(self, ids: Iterable[str]) -> None:
        """Delete documents; their ids are free again.

        Raises:
            DataError: an id is unknown; nothing is deleted then.

        """
        ids = checked_deletions(list(dict.fromkeys(ids)), self._rows)
        self._deleted[[self._rows.pop(name) for name in ids]] = True
        self._masks.clear()

    def search(
        self, vectors: NDArray[np.float32], k: int, *, where: Where = None
    ) -> tuple[list[list[str]], list[NDArray[np.float32]]]:
        """Return for each query vector its best ids and their inner products, best first.

        `where` keeps the documents whose attributes fit: one condition for all queries, or a
        sequence of one a query (None: no condition). Queries of one condition share its work. A
        row is shorter than `k` only where fewer documents fit.

        Raises:
            DataError: a wrong shape, NaN or infinity.
            ConfigError: `k` is below 1, or a condition cannot be read or names no attribute.

        """
        queries = checked_queries(vectors, k, self.dimension)
        ids: list[list[str]] = [[] for _ in queries]
        scores = [np.empty(0, np.float32)] * len(queries)
        for condition, places in grouped(where, len(queries)):
            allowed = self._allowed(condition)
            count = len(self) if allowed is None else allowed.count
            if not count or not len(places):
                continue
            found = self._named(*self._search(queries[places], min(k, count), allowed))
            for place, own_ids, own_scores in zip(places.tolist(), *found, strict=True):
                ids[place], scores[place] = own_ids, own_scores
        return ids, scores

    def vectors_of(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of documents, as exact as the engine knows them.

        Raises:
            KeyError: an id is unknown.
            DataError: the engine cannot give back what was added.

        """
        if not len(ids):
            return np.empty((0, self.dimension), np.float32)
        rows, positions = np.unique([self._rows[id] for id in ids], return_inverse=True)
        try:
            return np.array(self._vectors(rows)[positions], np.float32)
        except RuntimeError as error:
            raise DataError(f"this kind of index cannot return vectors ({error}).") from error

    @property
    def schema(self) -> "pa.Schema | None":
        """The names and types of the attributes; None if the documents have none."""
        return None if self._attributes is None else self._attributes.table.schema

    @property
    def attributes(self) -> "Attributes | None":
        """The attributes of all documents, in the order of `ids`; None if they have none."""
        if self._attributes is None or not self.deleted_rows:
            return self._attributes
        return self._attributes.take(np.flatnonzero(~self._deleted))

    def attributes_of(self, ids: Sequence[str]) -> "pa.Table | None":
        """Return the rows of attributes of documents; None if the index has none.

        Raises:
            KeyError: an id is unknown.

        """
        if self._attributes is None:
            return None
        return self._attributes.take([self._rows[id] for id in ids]).table

    def plan(self, where: "str | Expression | None", k: int, queries: int = 1) -> Plan:
        """Return how a search would go, without searching.

        Raises:
            ConfigError: the condition cannot be read or names no attribute.

        """
        ((condition, _),) = grouped(where, 1)
        allowed = self._allowed(condition)
        if allowed is None and len(self):
            return Plan("search", len(self), len(self))  # as `search` does
        if allowed is None or not allowed.count:
            return Plan("nothing", 0, len(self))
        return self._plan(allowed, k, queries)

    def _plan(self, allowed: Allowed, k: int, queries: int) -> Plan:
        """Return how the engine finds `k` of the allowed rows."""
        return Plan("scan", allowed.count, len(self))

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder: vectors, ids, attributes and checksums."""
        folder = Path(folder)
        self._write(folder / self.vectors_file)
        table = pa.table(
            {"id": pa.array(self._ids, pa.large_string()), "deleted": pa.array(self._deleted)}
        )
        with pa.OSFile(str(folder / IDS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
            out.write_table(table)
        files = [self.vectors_file, IDS]
        if self._attributes is not None:
            self._attributes.write(folder / ATTRIBUTES)
            files.append(ATTRIBUTES)
        details = {
            "kind": self.kind,
            "dimension": self.dimension,
            "vectors": len(self),
            "settings": self._settings(),
            "sha256": {name: digest_file(folder / name) for name in files},
        }
        write_atomically(folder / DETAILS, (json.dumps(details, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote.

        Raises:
            DataError: there is no index, it is of another kind, or a file is missing or damaged.

        """
        folder = Path(folder)
        try:
            details = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
            kind, checksums = details["kind"], dict(details["sha256"])
            dimension, settings = int(details["dimension"]), dict(details["settings"])
        except FileNotFoundError:
            raise DataError(f"{folder} holds no index: it has no {DETAILS}.") from None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{folder / DETAILS} is damaged ({error}). Embed again.") from error
        if kind != cls.kind:
            raise DataError(f"{folder} holds a {kind!r} index, but {cls.kind!r} was wanted.")
        for name in {cls.vectors_file, IDS, *checksums}:
            path = folder / name
            if not path.is_file() or digest_file(path) != checksums.get(name):
                raise DataError(f"{path} is missing or damaged (wrong checksum). Embed again.")
        try:
            index = cls(dimension, **settings)
        except (ConfigError, TypeError, AttributeError) as error:
            raise DataError(f"{folder / DETAILS} is damaged ({error}). Embed again.") from error
        index._read(folder / cls.vectors_file)
        with pa.memory_map(str(folder / IDS)) as source, pa.ipc.open_file(source) as opened:
            table = opened.read_all()
            if table.column_names != ["id", "deleted"]:
                raise DataError(f"{folder / IDS} is of an older version. Embed again.")
            index._ids = table["id"].to_pylist()
            index._deleted = table["deleted"].to_numpy().copy()
        index._rows = {index._ids[row]: int(row) for row in np.flatnonzero(~index._deleted)}
        if ATTRIBUTES in checksums:
            from retrodistill.data.filters import Attributes

            index._attributes = Attributes.read(folder / ATTRIBUTES)
        return index

    def _allowed(self, condition: "Expression | None") -> Allowed | None:
        """Return which rows may be found, or None if all may."""
        try:
            return self._masks[condition]
        except KeyError:
            pass
        allowed = Allowed(~self._deleted, True) if self.deleted_rows else None
        if condition is not None:
            if self._attributes is None:
                raise no_attributes(condition)
            fits = self._attributes.matching(condition)
            allowed = Allowed(fits if allowed is None else fits & allowed.mask, False)
        if len(self._masks) >= MASKS:
            self._masks.clear()
        self._masks[condition] = allowed
        return allowed

    def _joined(self, attributes: "pa.Table | None", rows: int) -> "Attributes | None":
        """Return all attributes with the new rows behind the old ones."""
        others = (self._attributes is not None) if self._ids else None
        check_attributes(None if attributes is None else len(attributes), rows, others=others)
        if not rows:
            return self._attributes
        if attributes is None:
            return None
        from retrodistill.data.filters import Attributes

        new = Attributes.from_table(attributes)
        return new if self._attributes is None else self._attributes.append(new)

    def _names_of(self, rows: NDArray[np.int64]) -> list[list[str]]:
        """Return the ids of rows; for a few of them, without an array of all ids."""
        if len(self._names) != len(self._ids):
            if rows.size < len(self._ids) // 4:
                return [[self._ids[row] for row in own] for own in rows.tolist()]
            self._names = np.array(self._ids, object)
        names: list[list[str]] = self._names[rows].tolist()
        return names

    def _named(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[list[list[str]], list[NDArray[np.float32]]]:
        """Return each query's ids and scores, without empty places, ties by descending id."""
        ids, values = self._names_of(rows), list(scores)
        tied = (scores[:, 1:] == scores[:, :-1]).any(axis=1)
        for query in np.flatnonzero((rows < 0).any(axis=1) | tied):
            there = np.flatnonzero(rows[query] >= 0)
            own, names = scores[query], ids[query]
            order = sorted(there, key=lambda at: (own[at], names[at]), reverse=True)
            ids[query], values[query] = [names[at] for at in order], own[order]
        return ids, values
