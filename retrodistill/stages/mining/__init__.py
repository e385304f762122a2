"""Mining: from a collection to candidates for a teacher to score."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from retrodistill.base.config import MineSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import RETRIEVERS
from retrodistill.base.types import RetrieverOptions
from retrodistill.data.datasets.collection import ALL
from retrodistill.data.rankings import reciprocal_ranks
from retrodistill.data.store.lineage import joined, spec_lineage
from retrodistill.data.store.runs import Run
from retrodistill.models.retrievers import load_retriever, retrieved_run
from retrodistill.stages.mining import labels

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

__all__ = ["mine_candidates", "reciprocal_ranks"]

DEFAULTS = MineSettings()

SPLIT = "train"
"""Whose queries to mine for, if nothing is said."""


def mine_candidates(
    collection: "Collection",
    split: str | None = None,
    settings: MineSettings = DEFAULTS,
) -> Run:
    """Return the best `settings.depth` documents for each query of a split, and of a file.

    Without a split, the queries are the file's alone, or those of the split `train`. Several
    retrievers are fused by reciprocal ranks.

    Raises:
        ConfigError: an unknown retriever, or a filter that does not fit.
        DataError: there are no queries, or no query finds a document.

    """
    retrievers = settings.retriever
    ratio = settings.false_negative_ratio
    if ratio is not None and len(retrievers) > 1:
        raise ConfigError(
            "--false-negative-ratio compares scores, but fused lists hold sums of reciprocal "
            "ranks. Give one --retriever."
        )
    query_ids = collection.chosen_queries(split, default=SPLIT)
    filtered = settings.drop_positives or settings.add_positives or ratio is not None
    relevant = _relevant(collection, split, query_ids) if filtered else {}
    if filtered and not relevant:
        raise ConfigError(
            "--drop-positives, --add-positives and --false-negative-ratio need known relevant "
            "documents, but these queries have no judgements."
        )
    for spec in retrievers:
        RETRIEVERS.split(spec)  # an unknown name is refused before the first model is loaded
    log.info(
        f"{len(query_ids):,} queries over {len(collection.docs):,} documents: "
        f"{', '.join(retrievers)}"
    )
    options = RetrieverOptions(
        max_tokens=settings.max_tokens,
        precision=settings.precision,
        executor=settings.executor,
        workers=settings.workers,
    )
    runs = [
        retrieved_run(
            load_retriever(spec, collection.docs, options),
            collection,
            query_ids,
            k=settings.depth,
            name=spec,
        )
        for spec in retrievers
    ]
    run = (
        runs[0] if len(runs) == 1 else reciprocal_ranks(runs, k=settings.rrf_k).top(settings.depth)
    )
    if not len(run):
        raise DataError(
            f"{', '.join(retrievers)} finds no document for any of {len(query_ids):,} queries: do "
            f"they share a word with the documents of {collection.name}?"
        )
    run = replace(run, lineage=joined(map(spec_lineage, retrievers)))
    if ratio is not None:
        step = labels.drop_false_negatives(run, relevant, ratio=ratio)
        run = step.run
        log.info(f"false-negative filter: {step.rows:,} candidates dropped.")
    if settings.drop_positives:
        step = labels.drop_positives(run, relevant)
        run = step.run
        log.info(f"{step.rows:,} known relevant documents dropped.")
    if settings.add_positives:
        step = labels.add_positives(run, relevant)
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
    requested = set(query_ids)
    relevant: dict[str, frozenset[str]] = {}
    for name in splits:
        for query, docs in collection.relevant(name).items():
            if query in requested:
                relevant[query] = relevant.get(query, frozenset()) | frozenset(docs)
    return relevant
