"""Mining: from a collection to the candidates that a teacher shall score."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import Executor, Precision
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import RETRIEVERS
from retrodistill.data.datasets.collection import ALL
from retrodistill.data.rankings import reciprocal_ranks
from retrodistill.data.store.lineage import joined, spec_lineage
from retrodistill.data.store.runs import Run
from retrodistill.stages.mining import fuse

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

__all__ = ["mine_candidates", "reciprocal_ranks"]

SPLIT = "train"
"""Whose queries to mine for, if nothing is said."""


def mine_candidates(
    collection: "Collection",
    split: str | None = None,
    *,
    retrievers: Sequence[str] = ("bm25",),
    depth: int = 100,
    rrf_k: float = 60.0,
    drop_positives: bool = False,
    add_positives: bool = False,
    false_negative_ratio: float | None = None,
    max_tokens: int | None = None,
    precision: Precision = "auto",
    executor: Executor = "local",
    workers: int | None = None,
) -> Run:
    """Return the best `depth` documents for each query of a split, and each that a file added.

    Without a split, these are the file's queries alone, or those of the split `train`.

    A retriever is `bm25`, `lucene`, `dense:MODEL` or `sparse:MODEL`; several are fused by
    reciprocal ranks. `executor` and its `workers` encode the documents of dense models; all else
    is this process's.

    Raises:
        ConfigError: an unknown retriever, a filter that does not fit, or a depth below 1.
        DataError: there are no queries, or no query finds a document.

    """
    if false_negative_ratio is not None and len(retrievers) > 1:
        raise ConfigError(
            "--false-negative-ratio compares scores, but fused lists hold sums of reciprocal "
            "ranks. Give one --retriever."
        )
    if depth < 1:
        raise ConfigError(f"the depth must be at least 1, but it is {depth}.")
    query_ids = collection.chosen_queries(split, default=SPLIT)
    filtered = drop_positives or add_positives or false_negative_ratio is not None
    relevant = _relevant(collection, split, query_ids) if filtered else {}
    if filtered and not relevant:
        raise ConfigError(
            "--drop-positives, --add-positives and --false-negative-ratio need known relevant "
            "documents, but these queries have no judgements."
        )
    found = [RETRIEVERS.split(spec) for spec in retrievers]
    log.info(
        f"{len(query_ids):,} queries over {len(collection.docs):,} documents: "
        f"{', '.join(retrievers)}"
    )
    settings: dict[str, Any] = {
        "k": depth,
        "max_tokens": max_tokens,
        "precision": precision,
        "executor": executor,
        "workers": workers,
    }
    runs = [part(argument, collection, query_ids, **settings) for part, argument in found]
    run = runs[0] if len(runs) == 1 else reciprocal_ranks(runs, k=rrf_k).top(depth)
    if not len(run):
        raise DataError(
            f"{', '.join(retrievers)} finds no document for any of {len(query_ids):,} queries: do "
            f"they share a word with the documents of {collection.name}?"
        )
    run = replace(run, lineage=joined(map(spec_lineage, retrievers)))
    if false_negative_ratio is not None:
        step = fuse.drop_false_negatives(run, relevant, ratio=false_negative_ratio)
        run = step.run
        log.info(f"false-negative filter: {step.rows:,} candidates dropped.")
    if drop_positives:
        step = fuse.drop_positives(run, relevant)
        run = step.run
        log.info(f"{step.rows:,} known relevant documents left out.")
    if add_positives:
        step = fuse.add_positives(run, relevant)
        run = step.run
        log.info(f"{step.rows:,} known relevant documents added that were not found.")
    return run


def _relevant(
    collection: "Collection", split: str | None, query_ids: Sequence[str]
) -> dict[str, frozenset[str]]:
    """Return the known relevant documents of these queries: of the split, or of all splits."""
    if split is None:
        split = ALL if collection.file_queries else SPLIT
    splits = [split] if split in collection.splits else collection.splits
    wanted = set(query_ids)
    relevant: dict[str, frozenset[str]] = {}
    for name in splits:
        for query, docs in collection.relevant(name).items():
            if query in wanted:
                relevant[query] = relevant.get(query, frozenset()) | frozenset(docs)
    return relevant
