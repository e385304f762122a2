"""Missing shards of a store, with progress and an estimate of the time."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.logging import log
from retrodistill.base.progress import bar, duration
from retrodistill.base.types import Reads, Unit
from retrodistill.data.store.keyed import KeyedStore
from retrodistill.data.store.shards import Shard, claim
from retrodistill.data.store.text_keys import text_keys

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

SAMPLE = 64
"""Documents whose length is measured for the estimate of the work."""


def missing_shards(
    store: KeyedStore,
    collection: "Collection",
    table: pa.Table,
    *,
    reads: Reads,
    rows: int,
    unit: Unit = "pair",
) -> Iterator[Shard]:
    """Yield the shards that lack a value for rows of ids, each held for this process to write.

    `reads` names the parts of a text that the teacher reads, `rows` the length of a new shard.
    Logs the amount of work and the time that remains.
    """
    # Key the rows by their texts, and withdraw the values of texts that have changed.
    ids = store.form.ids
    keys = text_keys(collection, ids, reads=reads)(table)
    table = table.select(ids).append_column("key", pa.array(keys, pa.uint64()))
    withdrawn = store.adopt(
        collection.fingerprint, text_keys(collection, ids, reads=reads, strict=False)
    )
    if withdrawn:
        log.info(f"{withdrawn:,} {store.form.kind} are withdrawn: their texts have changed.")
    # Yield what is missing. A second round is needed only where other processes follow other plans.
    missing, is_first = table, True
    while shards := store.plan(missing, shard_rows=rows, unit=unit):
        pairs = sum(len(shard.rows) for shard in shards)
        if is_first:
            log.info(f"{len(table):,} pairs, {len(table) - pairs:,} of them scored already.")
            _log_estimate(collection, shards, pairs)
            is_first = False
        yield from _with_progress(shards, pairs)
        if unit == "list":  # each list once: another process may replace it by a list of its own
            asked = pa.concat_tables([shard.rows for shard in shards])["query_id"]
            missing = missing.filter(pc.invert(pc.is_in(missing["query_id"], asked)))
    if is_first:
        log.info(f"{len(table):,} pairs, all of them scored already.")


def _with_progress(shards: Sequence[Shard], pairs: int) -> Iterator[Shard]:
    """Yield claimed shards under a progress bar; log the rate of the first one."""
    with bar("scoring", pairs) as advance:
        for position, shard in enumerate(claim(list(shards))):
            started = time.perf_counter()
            yield shard
            advance(len(shard.rows))
            if position == 0 and len(shards) > 1:
                rate = len(shard.rows) / (time.perf_counter() - started)
                remaining = duration((pairs - len(shard.rows)) / rate)
                log.info(f"{rate:,.0f} pairs/s in the first shard: about {remaining} left.")


def _log_estimate(collection: "Collection", shards: Sequence[Shard], pairs: int) -> None:
    """Log how much there is to score, from documents spread over the first shard."""
    doc_ids = shards[0].rows["doc_id"]
    sample = range(0, len(doc_ids), max(1, len(doc_ids) // SAMPLE))
    rows = collection.docs.rows(doc_ids.take(list(sample)).to_pylist())
    words = sum(len(text.split()) for text in collection.docs.full_texts(rows)) / len(rows)
    log.info(
        f"{pairs:,} pairs to score, documents of about {words:,.0f} words: about "
        f"{pairs * words / 1e6:,.1f} million words in {len(shards):,} shards, "
        f"{pairs * 12 / 1e6:,.1f} MB."
    )
