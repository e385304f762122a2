"""What every index shares: opaque string ids, checks at the door, the tie rule, and its files."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.errors import ConfigError, DataError
from retrodistill.manifest import write_atomically

DETAILS = "index.json"
IDS = "ids.arrow"

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and row numbers, both of shape (queries, k); row -1 means that nothing was found."""


class VectorIndex(ABC):
    """String ids over an engine that knows row numbers only.

    A kind of index says how its engine adds, searches, writes and reads. Ids are unique, opaque
    strings. Documents of equal score come in descending order of their ids.
    """

    kind: ClassVar[str]
    vectors_file: ClassVar[str]

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise ConfigError(f"an index needs a dimension of at least 1, but got {dimension}.")
        self.dimension = dimension
        self._ids: list[str] = []
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    @abstractmethod
    def _add(self, vectors: NDArray[np.float32]) -> None:
        """Append checked, contiguous vectors to the engine."""

    @abstractmethod
    def _search(self, queries: NDArray[np.float32], k: int) -> Rows:
        """Return the best `k` rows of each query, best first; the index holds at least `k`."""

    @abstractmethod
    def _write(self, path: Path) -> None:
        """Write the engine's vectors into a file."""

    @abstractmethod
    def _read(self, path: Path) -> None:
        """Take the engine's vectors from a file whose checksum is right."""

    def _settings(self) -> dict[str, Any]:
        """Return the keyword arguments that make this index again."""
        return {}

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add vectors of shape (len(ids), dimension).

        Raises:
            DataError: an id that is a duplicate or no string, a wrong shape, NaN or infinity;
                nothing is added then.

        """
        ids = list(ids)
        checked = self._checked(vectors, f"{len(ids)} ids")
        if len(checked) != len(ids):
            raise DataError(f"{len(ids)} ids came with {len(checked)} vectors: give one each.")
        bad = _first_bad_row(checked)
        if bad is not None:
            raise DataError(
                f"the vector of id {ids[bad]!r} holds NaN or infinity. "
                "Check the model that made it; nothing was added."
            )
        self._refuse_ids(ids)
        self._add(checked)
        self._ids.extend(ids)
        self._known.update(ids)

    def search(
        self, vectors: NDArray[np.float32], k: int
    ) -> tuple[list[list[str]], list[NDArray[np.float32]]]:
        """Return for each query vector its best ids and their inner products, best first.

        A row is shorter than `k` where the index holds fewer vectors.

        Raises:
            DataError: a wrong shape, NaN or infinity.
            ConfigError: `k` is below 1.

        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, but it is {k}.")
        queries = self._checked(vectors, "the queries")
        bad = _first_bad_row(queries)
        if bad is not None:
            raise DataError(f"query vector {bad} holds NaN or infinity. Check the model.")
        if not len(queries) or not self._ids:
            return [[] for _ in queries], [np.empty(0, np.float32) for _ in queries]
        scores, rows = self._search(queries, min(k, len(self._ids)))
        found = [self._named(*one) for one in zip(scores, rows, strict=True)]
        return [ids for ids, _ in found], [values for _, values in found]

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder: vectors, ids, and both checksums."""
        folder = Path(folder)
        self._write(folder / self.vectors_file)
        table = pa.table({"id": pa.array(self._ids, pa.large_string())})
        with pa.OSFile(str(folder / IDS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
            out.write_table(table)
        details = {
            "kind": self.kind,
            "dimension": self.dimension,
            "vectors": len(self._ids),
            "settings": self._settings(),
            "sha256": {name: _sha256(folder / name) for name in (self.vectors_file, IDS)},
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
        for name in (cls.vectors_file, IDS):
            path = folder / name
            if not path.is_file() or _sha256(path) != checksums.get(name):
                raise DataError(f"{path} is missing or damaged (wrong checksum). Embed again.")
        index = cls(dimension, **settings)
        index._read(folder / cls.vectors_file)
        with pa.memory_map(str(folder / IDS)) as source, pa.ipc.open_file(source) as table:
            index._ids = table.read_all()["id"].to_pylist()
        index._known = set(index._ids)
        return index

    def _checked(self, vectors: NDArray[np.float32], whose: str) -> NDArray[np.float32]:
        """Return the vectors as a contiguous float32 matrix of the right width."""
        matrix = np.asarray(vectors)
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise DataError(
                f"vectors of shape (n, {self.dimension}) were wanted for {whose}, but they have "
                f"shape {matrix.shape}. Use the model that the index was made with."
            )
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(matrix, dtype=np.float32)

    def _refuse_ids(self, ids: list[str]) -> None:
        """Raise DataError at the first id that is no string, empty, or there already."""
        new: set[str] = set()
        for row, name in enumerate(ids):
            if not isinstance(name, str) or not name:
                raise DataError(f"id {name!r} in row {row} must be a string that is not empty.")
            if name in new or name in self._known:
                raise DataError(f"id {name!r} in row {row} is a duplicate; nothing was added.")
            new.add(name)

    def _named(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Return one query's ids and scores, without empty places, ties by descending id."""
        scores = scores[rows >= 0]
        ids = [self._ids[row] for row in rows[rows >= 0]]
        if (scores[1:] == scores[:-1]).any():
            order = sorted(range(len(ids)), key=lambda at: (scores[at], ids[at]), reverse=True)
            ids, scores = [ids[at] for at in order], scores[order]
        return ids, scores


def _first_bad_row(matrix: NDArray[np.float32]) -> int | None:
    """Return the first row with NaN or infinity, or None."""
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    return int(bad[0]) if len(bad) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
