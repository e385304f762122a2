"""The pool: which documents of which queries are judged."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from retrodistill.base.errors import DataError
from retrodistill.base.logging import log
from retrodistill.data.store.runs import Run
from retrodistill.stages.judging.requirements import recorded_collection

if TYPE_CHECKING:
    from retrodistill.base.config import JudgeSettings
    from retrodistill.data.datasets import Collection


def pooled(
    collection: "Collection",
    runs: Mapping[str, Run],
    settings: "JudgeSettings",
    *,
    split: str | None = None,
) -> Run:
    """Return the union of the first `depth` documents that each run has for each query.

    All scores are 0, so that its documents are ordered by id: a judge sees neither a score nor a
    rank of any system. Queries are those of the split and of a file, or all of the runs without.

    Raises:
        DataError: a run is of another collection, or has none of the queries.

    """
    for name, run in runs.items():
        check_collection(collection, name, run)
    retrieved = {query for run in runs.values() for query in run.query_ids}
    if split is not None or collection.file_queries:
        chosen = set(collection.chosen_queries(split, default=""))
        for name, run in runs.items():
            if chosen.isdisjoint(run.query_ids):
                raise DataError(
                    f"run {name!r} has no query of {split or 'the file of queries'}: it has ids "
                    f"like {run.query_ids[:3]}. Check --split, or give the run of these queries."
                )
        if absent := len(chosen - retrieved):
            log.warning(f"{absent:,} of {len(chosen):,} queries are in no run, and not judged.")
        retrieved &= chosen
    queries = drawn(collection, retrieved, settings.max_queries, settings.seed)
    docs: dict[str, set[str]] = {query: set() for query in queries}
    for run in runs.values():
        for query, ids, _ in run.select(queries).top(settings.depth).lists():
            docs[query].update(ids)
    return Run.from_dict({query: dict.fromkeys(ids, 0.0) for query, ids in docs.items()})


def drawn(
    collection: "Collection", queries: Iterable[str], most: int | None, seed: int
) -> list[str]:
    """Return at most `most` of the queries, drawn at random, in the collection's order."""
    rows = np.sort(collection.queries.rows(list(queries)))
    if most is not None and most < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    return collection.queries.ids(rows)


def check_collection(collection: "Collection", name: str, run: Run) -> None:
    """Raise DataError if a run was made from another collection than this one."""
    if not len(run):
        raise DataError(f"run {name!r} holds no document.")
    for texts, column, kind in (
        (collection.queries, "query_id", "query"),
        (collection.docs, "doc_id", "document"),
    ):
        ids = run.table[column].unique().to_pylist()
        absent = np.flatnonzero(texts.find(ids) < 0)
        if len(absent):
            raise DataError(
                f"run {name!r} is not of {collection.name}: {len(absent):,} of its {len(ids):,} "
                f"{kind} ids are not in the collection, as {ids[absent[0]]!r}. Give the collection "
                "that it was made from, with --queries if it was made with a file of queries."
            )
    fingerprint = "" if run.origin is None else recorded_collection(run.origin)
    if fingerprint and not collection.file_queries and fingerprint != collection.fingerprint:
        raise DataError(
            f"run {name!r} was made from another collection than {collection.name}, or from "
            "another state of it: the ids are the same, but not the texts. Make the run again."
        )
