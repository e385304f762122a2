"""From texts to ids and back, for formats that hold no ids."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import hash64
from retrodistill.base.types import Doc

BATCH = 1 << 14


class TextTable(Protocol):
    """The documents or the queries of a collection, as far as formats need them."""

    name: str

    def __iter__(self) -> Iterator[Doc]: ...

    def __getitem__(self, row: int) -> Doc: ...

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of these rows."""
        ...

    def full_texts(self, rows: NDArray[np.int64]) -> list[str]:
        """Return title and text, joined by a space, of these rows."""
        ...

    def distinct(self, ids: pa.ChunkedArray) -> tuple[list[Doc], NDArray[np.int64]]:
        """Return the distinct texts of a column of ids, and each row's position there."""
        ...


class TextCollection(Protocol):
    """The texts of a collection."""

    @property
    def docs(self) -> TextTable:
        """All documents."""
        ...

    @property
    def queries(self) -> TextTable:
        """All queries."""
        ...


class TextIds:
    """Finds the id of a text: title and text joined by a space, or the text alone.

    Memory is 16 bytes for each text and its title-less form: a 64-bit hash and a row number. What
    the hash matches is compared with the real text. Of documents of equal text the first is taken,
    and noted in `shared`.
    """

    def __init__(
        self, texts: TextTable, *, hasher: Callable[[Sequence[str]], NDArray[np.uint64]] = hash64
    ) -> None:
        self.name = texts.name
        self.shared: set[int] = set()
        """Rows that were taken although others have the same text."""
        self._texts = texts
        self._hasher = hasher
        hashes, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        stream, start = iter(texts), 0
        while batch := list(islice(stream, BATCH)):
            full = [doc.full_text for doc in batch]
            titled = [i for i, doc in enumerate(batch) if doc.text != full[i]]
            hashes += [hasher(full), hasher([batch[i].text for i in titled])]
            rows += [np.arange(start, start + len(batch)), np.array(titled, np.int64) + start]
            start += len(batch)
        unsorted, numbers = np.concatenate(hashes), np.concatenate(rows)
        order = np.lexsort((numbers, unsorted))
        self._hashes, self._rows = unsorted[order], numbers[order]

    def find(self, texts: Sequence[str], where: Callable[[int], str]) -> list[str]:
        """Return the id of each text; `where` names the place of the i-th.

        Raises:
            DataError: a text is not in the collection.

        """
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        rows = self._first_rows(list(distinct))
        if (rows < 0).any():
            absent = next(i for i, text in enumerate(texts) if rows[distinct[text]] < 0)
            raise DataError(
                f"{where(absent)}: {self.name} hold no text {texts[absent][:60]!r}... "
                "Is this the collection that the file was made from?"
            )
        ids = self._texts.ids(rows)
        return [ids[distinct[text]] for text in texts]

    def _first_rows(self, texts: list[str]) -> NDArray[np.int64]:
        """Return the first row of each text, or -1."""
        # The rows with the hash of each text: `counts` of them, from `start` on.
        hashes = self._hasher(texts)
        start = np.searchsorted(self._hashes, hashes, side="left")
        counts = np.searchsorted(self._hashes, hashes, side="right") - start
        owners = np.repeat(np.arange(len(texts)), counts)
        positions = np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners] + start[owners]
        rows = self._rows[positions]
        # Of those, the first whose text is equal too.
        first_rows = np.full(len(texts), -1, np.int64)
        for owner, row, real in zip(
            owners.tolist(), rows.tolist(), self._texts.full_texts(rows), strict=True
        ):
            text = texts[owner]
            if (real == text or self._texts[row].text == text) and first_rows[owner] != row:
                if first_rows[owner] < 0:
                    first_rows[owner] = row
                else:
                    self.shared.add(int(first_rows[owner]))
        return first_rows


def docs_of(texts: TextTable, ids: Sequence[str]) -> list[Doc]:
    """Return the texts of distinct ids, in their order.

    Raises:
        DataError: an id is not in the collection.

    """
    return texts.distinct(pa.chunked_array([ids], pa.string()))[0]


def needed(collection: TextCollection | None) -> TextCollection:
    """Return the collection.

    Raises:
        ConfigError: there is none.

    """
    if collection is None:
        raise ConfigError("this format holds texts: give the collection that the run's ids are of.")
    return collection
