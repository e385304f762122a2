"""Candidates as rows of ids, and the texts that these ids name."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.errors import DataError
from retrodistill.base.types import Comparisons, Pairs
from retrodistill.data.store.columns import widened
from retrodistill.data.store.form import PREFERENCES
from retrodistill.data.store.runs import Run
from retrodistill.data.store.triples import candidates_from_triples, is_triples
from retrodistill.models.teachers.comparisons import ring

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def read_candidates(path: Path) -> Run:
    """Return the pairs to score: from a run folder or file, or from a file of id triples.

    Raises:
        DataError: it is malformed, or holds no pair.

    """
    run = candidates_from_triples(path) if is_triples(path) else Run.read(path)
    if not len(run):
        raise DataError(f"{path} holds no pair to score. Is it the right file?")
    return run


def edges_of(candidates: Run, opponents: int) -> pa.Table:
    """Return query_id, doc_id and other_id of the comparisons within each query's list.

    Of two documents the one with the lower id is named first, however the list ranks them: in
    another order of the list an edge is the same.

    Raises:
        DataError: no list has two documents.

    """
    upper, lower = ring(candidates.list_sizes, opponents)
    if not len(upper):
        raise DataError("no query has two candidates that could be compared. Mine more of them.")
    # The document with the lower id comes first.
    doc_ids = candidates.table["doc_id"]
    id_ranks = pc.rank(doc_ids).to_numpy()
    is_swapped = id_ranks[upper] > id_ranks[lower]
    docs_of_edges = np.where(is_swapped, lower, upper), np.where(is_swapped, upper, lower)
    # A row occurs as often as it has opponents, so the columns may need 64-bit offsets.
    queries, docs = (
        widened(column, copies=int(candidates.list_sizes.max()))
        for column in (candidates.table["query_id"], doc_ids)
    )
    return pa.table(
        [queries.take(upper), *(docs.take(rows) for rows in docs_of_edges)], names=PREFERENCES.ids
    )


def pairs_of(collection: "Collection", table: pa.Table) -> Pairs:
    """Return the texts of the columns query_id and doc_id."""
    queries, query_rows = collection.queries.distinct(table["query_id"])
    docs, doc_rows = collection.docs.distinct(table["doc_id"])
    return Pairs(queries, docs, query_rows, doc_rows)


def comparisons_between(collection: "Collection", table: pa.Table) -> Comparisons:
    """Return the texts of the columns query_id, doc_id and other_id."""
    queries, query_rows = collection.queries.distinct(table["query_id"])
    columns = table["doc_id"], table["other_id"]
    both = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    docs, rows = collection.docs.distinct(both)
    return Comparisons(queries, docs, query_rows, rows[: len(table)], rows[len(table) :])
