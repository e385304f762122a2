"""The keys of texts: by them a store knows that an id still names the text that was scored."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.manifest import hash64
from retrodistill.base.types import Reads
from retrodistill.data.store.columns import coded
from retrodistill.data.store.form import SCORES, Keys, TextKeys, mixed
from retrodistill.data.store.formats.texts import docs_of

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts

HASHED_AT_ONCE = 1 << 16
"""Texts in memory while their keys are computed."""

Hashes = Callable[[Sequence[str]], tuple[Keys, NDArray[np.bool_]]]


def text_keys(
    collection: "Collection",
    names: Sequence[str] = SCORES.ids,
    *,
    reads: Reads = "text",
    strict: bool = True,
) -> TextKeys:
    """Return a function from columns of ids (a query's, then documents') to the key of their texts.

    `reads` is what of a text the teacher looks at. Unknown ids are a DataError; if not `strict`,
    their rows have the key 0.
    """
    hashers = [_hasher(texts, reads, strict) for texts in (collection.queries, collection.docs)]

    def keys(rows: pa.Table) -> Keys:
        sides, known = [], np.ones(len(rows), np.bool_)
        for place, name in enumerate(names):
            column = coded(rows[name])
            values, is_known = hashers[min(place, 1)](column.dictionary.to_pylist())
            places = column.indices.to_numpy()
            sides.append(values[places])
            known &= is_known[places]
        return np.where(known, reduce(mixed, sides), np.uint64(0))

    return keys


def _hasher(texts: "Texts", reads: Reads, strict: bool) -> Hashes:
    """Return a function from ids to the hashes of what is read, and whether they are known."""

    def hashes(ids: Sequence[str]) -> tuple[Keys, NDArray[np.bool_]]:
        rows = texts.rows(ids) if strict else texts.find(ids)
        values = np.zeros(len(rows), np.uint64)
        known = np.flatnonzero(rows >= 0)
        for start in range(0, len(known), HASHED_AT_ONCE):
            places = known[start : start + HASHED_AT_ONCE]
            if reads == "fields":
                docs = docs_of(texts, [ids[place] for place in places])
                sides = ([doc.title for doc in docs], [doc.text for doc in docs])
                values[places] = mixed(*map(hash64, sides))
            else:
                values[places] = hash64(texts.full_texts(rows[places]))
        if reads == "id":
            values = mixed(values, hash64(ids))
        return values, rows >= 0

    return hashes
