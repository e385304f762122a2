"""From candidates to a full store: what is missing is scored, shard by shard."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.progress import bar, duration
from retrodistill.base.types import Comparer, Duels, Pairs, Reads, Teacher, Unit, reads_of
from retrodistill.data.store.columns import widened
from retrodistill.data.store.keyed import KeyedStore, Shard
from retrodistill.data.store.lineage import own_lineage
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import PreferenceStore, ScoreStore
from retrodistill.data.store.shards import PREFERENCES
from retrodistill.data.store.text_keys import text_keys
from retrodistill.data.store.triples import candidates_from_triples, is_triples
from retrodistill.models.inference.cuts import counted_cuts
from retrodistill.models.teachers.duels import ring
from retrodistill.models.teachers.runs import RunTeacher

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

SAMPLE = 64


def read_candidates(path: Path) -> Run:
    """Return what is to be scored: from a run folder or file, or from a file of id triples.

    Raises:
        DataError: it is malformed, or holds no pair.

    """
    run = candidates_from_triples(path) if is_triples(path) else Run.read(path)
    if not len(run):
        raise DataError(f"{path} holds no pair to score. Is it the right file?")
    return run


def score_candidates(
    collection: "Collection",
    candidates: Run,
    teacher: Teacher,
    out: Path,
    *,
    shard_pairs: int = 4096,
    config: Mapping[str, Any] | None = None,
) -> ScoreStore:
    """Score every candidate that `out` has no score of yet, and return the store.

    The same call may run in several processes at once: they share the shards.

    Raises:
        DataError: there are no candidates, an id is not in the collection, a score is not finite,
            or `out` holds the scores of another teacher.

    """
    if not len(candidates):
        raise DataError("the candidates hold no pair to score.")
    store = ScoreStore(
        out,
        teacher=teacher.fingerprint,
        inputs={"candidates": candidates.fingerprint},
        config=config,
        details={"scale": teacher.scale, "unit": teacher.unit},
    )
    store.join_lineage(own_lineage(teacher) | candidates.lineage)
    _fill(
        store,
        collection,
        candidates.table,
        lambda rows: teacher.score(pairs_of(collection, rows)),
        shard_rows=shard_pairs,
        unit=teacher.unit,
        reads=reads_of(teacher),
    )
    store.record(candidates=candidates.fingerprint, config=config)
    return store


def store_scores(
    collection: "Collection",
    scores: Run,
    out: Path,
    *,
    scale: str = "unknown",
    config: Mapping[str, Any] | None = None,
) -> ScoreStore:
    """Keep scores that are there already, imported or computed, as a store; return it."""
    return score_candidates(collection, scores, RunTeacher(scores, scale=scale), out, config=config)


def compare_candidates(
    collection: "Collection",
    candidates: Run,
    comparer: Comparer,
    out: Path,
    *,
    opponents: int = 4,
    shard_pairs: int = 4096,
    config: Mapping[str, Any] | None = None,
) -> PreferenceStore:
    """Compare each candidate with the next `opponents` of its query (0: with all), and store.

    The lists are closed to a ring, so that each document meets as many others before it as
    after it. A comparer asks in both orders, so an edge is stored in one direction only.

    Raises:
        ConfigError: the teacher does not compare.
        DataError: no query has two candidates, an id is not in the collection, a preference is
            not finite, or `out` holds the preferences of another teacher.

    """
    if not isinstance(comparer, Comparer):
        raise ConfigError(
            f"{type(comparer).__name__} scores single documents: preferences need a pairwise "
            "teacher (pairwise:MODEL, llm-pairwise:MODEL)."
        )
    edges = edges_of(candidates, opponents)
    store = PreferenceStore(
        out,
        teacher=comparer.fingerprint,
        inputs={"candidates": candidates.fingerprint},
        config=config,
    )
    store.join_lineage(own_lineage(comparer) | candidates.lineage)
    _fill(
        store,
        collection,
        edges,
        lambda rows: comparer.compare(duels_between(collection, rows)),
        shard_rows=shard_pairs,
        reads=reads_of(comparer),
    )
    store.record(candidates=candidates.fingerprint, config=config)
    return store


def _fill(
    store: KeyedStore,
    collection: "Collection",
    rows: pa.Table,
    ask: Callable[[pa.Table], NDArray[np.float32]],
    *,
    shard_rows: int,
    unit: Unit = "pair",
    reads: Reads = "text",
) -> None:
    """Ask the teacher for what the store lacks, shard by shard."""
    names = store.form.ids
    keys = text_keys(collection, names, reads=reads)(rows)
    rows = rows.select(names).append_column("key", pa.array(keys, pa.uint64()))
    withdrawn = store.adopt(
        collection.fingerprint, text_keys(collection, names, reads=reads, strict=False)
    )
    if withdrawn:
        log.info(f"{withdrawn:,} {store.form.kind} are withdrawn: their texts have changed.")
    total, missing = None, rows
    # A second round is needed only if other processes were at work on other plans.
    while shards := store.plan(missing, shard_rows=shard_rows, unit=unit):
        left = sum(len(shard.rows) for shard in shards)
        if total is None:
            total = left
            log.info(f"{len(rows):,} pairs, {len(rows) - left:,} of them scored already.")
            _estimate(collection, shards, left)
        with counted_cuts("texts"):
            _ask(store, shards, left, ask)
        if unit == "list":  # each list once: another process may replace it by a list of its own
            asked = pa.concat_tables([shard.rows for shard in shards])["query_id"]
            missing = missing.filter(pc.invert(pc.is_in(missing["query_id"], asked)))
    if total is None:
        log.info(f"{len(rows):,} pairs, all of them scored already.")


def _ask(
    store: KeyedStore,
    shards: list[Shard],
    total: int,
    ask: Callable[[pa.Table], NDArray[np.float32]],
) -> None:
    first = True
    with bar("scoring", total) as advance:
        for shard in store.claim(shards):
            started = time.perf_counter()
            values = ask(shard.rows)
            seconds = time.perf_counter() - started
            store.commit(shard, values, seconds=seconds)
            advance(len(shard.rows))
            if first and len(shards) > 1:
                rate = len(shard.rows) / seconds
                left = duration((total - len(shard.rows)) / rate)
                log.info(f"{rate:,.0f} pairs/s in the first shard: about {left} left.")
            first = False


def edges_of(candidates: Run, opponents: int) -> pa.Table:
    """Return query_id, doc_id and other_id of the comparisons within each query's list.

    Of two documents the one with the lower id is named first, however the list ranks them: in
    another order of the list an edge is the same.

    Raises:
        DataError: no list has two documents.

    """
    first, second = ring(candidates.list_sizes, opponents)
    if not len(first):
        raise DataError("no query has two candidates that could be compared. Mine more of them.")
    doc_ids = candidates.table["doc_id"]
    ranks = pc.rank(doc_ids).to_numpy()
    turned = ranks[first] > ranks[second]
    first, second = np.where(turned, second, first), np.where(turned, first, second)
    queries, docs = (
        widened(column, copies=int(candidates.list_sizes.max()))
        for column in (candidates.table["query_id"], doc_ids)
    )
    return pa.table(
        [queries.take(first), docs.take(first), docs.take(second)], names=PREFERENCES.ids
    )


def pairs_of(collection: "Collection", table: pa.Table) -> Pairs:
    """Return the texts of the columns query_id and doc_id."""
    queries, query_rows = collection.queries.distinct(table["query_id"])
    docs, doc_rows = collection.docs.distinct(table["doc_id"])
    return Pairs(queries, docs, query_rows, doc_rows)


def duels_between(collection: "Collection", table: pa.Table) -> Duels:
    """Return the texts of the columns query_id, doc_id and other_id."""
    queries, query_rows = collection.queries.distinct(table["query_id"])
    columns = table["doc_id"], table["other_id"]
    both = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    docs, rows = collection.docs.distinct(both)
    return Duels(queries, docs, query_rows, rows[: len(table)], rows[len(table) :])


def _estimate(collection: "Collection", shards: Sequence[Shard], total: int) -> None:
    """Tell what there is to do, from pairs spread over the first shard."""
    docs = shards[0].rows["doc_id"]
    spread = range(0, len(docs), max(1, len(docs) // SAMPLE))
    rows = collection.docs.rows(docs.take(list(spread)).to_pylist())
    words = sum(len(text.split()) for text in collection.docs.full_texts(rows)) / len(rows)
    log.info(
        f"{total:,} pairs to score, documents of about {words:,.0f} words: about "
        f"{total * words / 1e6:,.1f} million words in {len(shards):,} shards, "
        f"{total * 12 / 1e6:,.1f} MB."
    )
