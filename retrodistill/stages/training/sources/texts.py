"""Whether a store was made from the texts that a collection has: by the keys of its rows."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.errors import DataError
from retrodistill.base.types import Reads
from retrodistill.data.store.form import Form
from retrodistill.data.store.shards import current_rows
from retrodistill.data.store.text_keys import text_keys

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

REMEDY = (
    "Make it from these texts (a view's: --data ID,view=VIEW), or name the texts that it was made "
    "from: --teacher-view VIEW. --other-texts skips this check."
)


def check_keys(
    collection: "Collection", folder: Path, form: Form, used: pa.Table, *, lists: bool = False
) -> None:
    """Check that the rows of a store that are used have the keys of the collection's texts.

    Raises:
        DataError: a row has another key.

    """
    table = current_rows(folder, form, lists=lists)
    queries = pc.unique(used["query_id"]).cast(table["query_id"].type)
    table = table.filter(pc.is_in(table["query_id"], value_set=queries))
    stored = table["key"].to_numpy()
    changed = np.arange(len(table))
    for reads in get_args(Reads):  # the manifest does not record what the teacher reads of a text
        keys = text_keys(collection, form.ids, reads=reads)(table)
        changed = min(changed, np.flatnonzero(keys != stored), key=len)
        if not len(changed):
            return
    query, doc = (table[name][int(changed[0])].as_py() for name in form.ids[:2])
    raise DataError(
        f"{folder} was made from other texts than those of {collection.name}: "
        f"{len(changed):,} of {len(table):,} rows, such as query {query!r} with document "
        f"{doc!r}. {REMEDY}"
    )
