"""Keys of texts, by which a store notices that an id names another text than the scored one."""

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

Hashes = Callable[[Sequence[str]], tuple[Keys, NDArray[np.bool_]]]


def text_keys(
    collection: "Collection",
    names: Sequence[str] = SCORES.ids,
    *,
    reads: Reads = "text",
    strict: bool = True,
) -> TextKeys:
    """Return a function from columns of ids (a query's, then documents') to the key of their texts.

    `reads` names the parts of a text that the teacher reads. Unknown ids are a DataError; if not
    `strict`, their rows have the key 0.
    """
    hashers = [_hasher(texts, reads, strict) for texts in (collection.queries, collection.docs)]

    def keys(rows: pa.Table) -> Keys:
        sides, all_known = [], np.ones(len(rows), np.bool_)
        for position, name in enumerate(names):
            column = coded(rows[name])
            values, is_known = hashers[min(position, 1)](column.dictionary.to_pylist())
            indices = column.indices.to_numpy()
            sides.append(values[indices])
            all_known &= is_known[indices]
        return np.where(all_known, reduce(mixed, sides), np.uint64(0))

    return keys


def _hasher(texts: "Texts", reads: Reads, strict: bool) -> Hashes:
    """Return a function from ids to the hashes of what is read, and which ids are known."""

    def hashes(ids: Sequence[str]) -> tuple[Keys, NDArray[np.bool_]]:
        rows = texts.rows(ids) if strict else texts.find(ids)
        values = np.zeros(len(rows), np.uint64)
        known = np.flatnonzero(rows >= 0)
        known = known[np.argsort(rows[known], kind="stable")]  # as they lie in their file
        for portion in texts.portions(rows[known]):
            batch = known[portion]
            if reads == "fields":
                docs = docs_of(texts, [ids[position] for position in batch])
                sides = ([doc.title for doc in docs], [doc.text for doc in docs])
                values[batch] = mixed(*map(hash64, sides))
            else:
                values[batch] = hash64(texts.full_texts(rows[batch]))
        if reads == "id":
            values = mixed(values, hash64(ids))
        return values, rows >= 0

    return hashes
