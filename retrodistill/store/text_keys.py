"""The keys of texts: by them a store knows that an id still names the text that was scored."""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.manifest import hash64
from retrodistill.store.keyed import TextKeys
from retrodistill.store.shards import SCORES, mixed

if TYPE_CHECKING:
    from retrodistill.datasets import Collection, Texts

HASHED_AT_ONCE = 1 << 16
"""Texts in memory while their keys are computed."""


def text_keys(
    collection: "Collection", names: Sequence[str] = SCORES.ids, *, strict: bool = True
) -> TextKeys:
    """Return a function from columns of ids (a query's, then documents') to the key of their texts.

    Unknown ids are a DataError; if not `strict`, their rows have the key 0.
    """
    hashers = [_hasher(collection.queries, strict), _hasher(collection.docs, strict)]

    def keys(rows: pa.Table) -> NDArray[np.uint64]:
        sides, known = [], np.ones(len(rows), np.bool_)
        for place, name in enumerate(names):
            column = rows[name].combine_chunks().dictionary_encode()
            values, found = hashers[min(place, 1)](column.dictionary.to_pylist())
            codes = column.indices.to_numpy()
            sides.append(values[codes])
            known &= found[codes]
        return np.where(known, reduce(mixed, sides), np.uint64(0))

    return keys


def _hasher(texts: "Texts", strict: bool) -> Any:
    """Return a function from ids to the hashes of their texts, and whether they are known."""

    def hashes(ids: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        rows = texts.rows(ids) if strict else texts.find(ids)
        values = np.zeros(len(rows), np.uint64)
        known = np.flatnonzero(rows >= 0)
        for start in range(0, len(known), HASHED_AT_ONCE):
            places = known[start : start + HASHED_AT_ONCE]
            values[places] = hash64(texts.full_texts(rows[places]))
        return values, rows >= 0

    return hashes
