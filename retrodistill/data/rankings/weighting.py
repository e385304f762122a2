"""How much each run may say on each query."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.segments import Floats, Segments, numbered, scores_of
from retrodistill.data.store.runs import Run


@dataclass(frozen=True, eq=False, slots=True)
class QueryWeights:
    """A weight of each run for each query, as `confidence` and `agreement` make them."""

    query_ids: pa.Array
    """Distinct ids."""

    values: Floats
    """Shape (runs, queries), none negative."""


def confidence(runs: Sequence[Run]) -> QueryWeights:
    """Return each run's certainty on each query: 1 - H(softmax(z)) / log n.

    z are the z-scores of the query's n candidates in that run, so that the run's scale does not
    count. It lies from 0 (all the same, a single candidate, or none) to below 1 (one stands out).
    """
    query_ids, queries = numbered(runs, "query_id")
    values = np.zeros((len(runs), len(query_ids)))
    for row, run, owners in zip(values, runs, queries, strict=True):
        lists = Segments.of(owners)
        entropy = lists.entropy(lists.standardised(scores_of(run)))
        certainty = 1 - entropy / np.log(np.maximum(lists.lengths, 2))
        row[owners[lists.starts]] = np.where(lists.lengths > 1, certainty.clip(0, 1), 0)
    return QueryWeights(query_ids, values)


def agreement(runs: Sequence[Run], qrels: Qrels) -> QueryWeights:
    """Return each run's agreement with the labels: 1 / rank of its best relevant document.

    Relevant is a grade above 0. It is 0 where the run has none, and for queries without labels.
    """
    query_ids, queries = numbered(runs, "query_id")
    doc_ids, docs = numbered(runs, "doc_id")
    labels = [(q, d) for q, graded in qrels.items() for d, grade in graded.items() if grade > 0]
    sides = [
        pc.index_in(pa.array([label[side] for label in labels], pa.string()), value_set=ids)
        for side, ids in enumerate((query_ids, doc_ids))
    ]
    judged = pa.table(sides, names=["query", "doc"]).drop_null()
    numbers = [column.to_numpy().astype(np.int64) for column in judged.columns]
    relevant = pa.array(numbers[0] * len(doc_ids) + numbers[1])
    values = np.zeros((len(runs), len(query_ids)))
    for row, owners, own in zip(values, queries, docs, strict=True):
        pairs = pa.array(owners * len(doc_ids) + own)
        found = pc.is_in(pairs, value_set=relevant).to_numpy(zero_copy_only=False)
        np.maximum.at(row, owners[found], 1 / Segments.of(owners).ranks()[found])
    return QueryWeights(query_ids, values)


def checked_weights(members: int, weights: Sequence[float] | None) -> Floats:
    """Return a weight for each run (None: 1).

    Raises:
        ConfigError: they are not one for each run, or none is above 0, or one below.

    """
    if not members:
        raise ConfigError("an ensemble needs at least one score store or run.")
    shares = np.ones(members) if weights is None else np.asarray(weights, np.float64)
    fits = shares.shape == (members,) and np.isfinite(shares).all() and (shares >= 0).all()
    if not fits or not shares.any():
        raise ConfigError(
            f"{members} runs need as many weights, none negative and not all 0, but got {weights}."
        )
    return shares


def relative_weights(shares: Floats, own: QueryWeights | None, query_ids: pa.Array) -> Floats:
    """Return weights of shape (runs, queries) whose mean over the runs is 1.

    Raises:
        ConfigError: the queries' own weights are of other runs.
        DataError: they lack a query.

    """
    table = np.repeat(shares[:, None], len(query_ids), axis=1)
    if own is not None:
        wanted = (len(shares), len(own.query_ids))
        fits = own.values.shape == wanted and np.isfinite(own.values).all()
        if not fits or (own.values < 0).any():
            raise ConfigError(
                f"query weights must be finite, not negative, and of shape (runs, queries): wanted "
                f"{wanted}, got {own.values.shape}. Make them of the same runs in the same order."
            )
        columns = pc.index_in(query_ids, value_set=own.query_ids)
        if columns.null_count:
            absent = query_ids.filter(pc.is_null(columns))
            raise DataError(
                f"{len(absent):,} queries have no weights, {absent[0].as_py()!r} for one. "
                "Make the weights of the same runs."
            )
        products = table * own.values[:, columns.to_numpy()]
        table = np.where(products.any(axis=0), products, table)
    relative: Floats = table / table.mean(axis=0)
    return relative
