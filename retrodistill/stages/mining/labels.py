"""What is done to candidate lists: labelled positives in or out, false negatives out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.data.rankings.reranking import below
from retrodistill.data.store.runs import Run


@dataclass(frozen=True, slots=True)
class Treated:
    """A run after a step, and how many rows the step dropped or added."""

    run: Run
    rows: int


def drop_positives(run: Run, relevant: Mapping[str, frozenset[str]]) -> Treated:
    """Return the run without documents that are labelled relevant."""
    return _kept(
        run,
        (
            [doc not in relevant.get(query, frozenset()) for doc in docs]
            for query, docs, _ in run.lists()
        ),
    )


def add_positives(run: Run, relevant: Mapping[str, frozenset[str]]) -> Treated:
    """Return the run with every labelled document in it, missing ones at the end of the list."""
    missing = {query: sorted(docs, reverse=True) for query, docs in relevant.items()}
    lowest: dict[str, float] = {}
    for query, docs, scores in run.lists():
        if query in missing:
            listed = set(docs)
            missing[query] = [doc for doc in missing[query] if doc not in listed]
            lowest[query] = float(scores[-1])
    added = [
        (query, doc, score)
        for query, docs in missing.items()
        for doc, score in below({"": lowest.get(query, 0.0)}, docs).items()
    ]
    if not added:
        return Treated(run, 0)
    columns = (
        pa.chunked_array([*run.table[name].chunks, pa.array(values, run.table[name].type)])
        for name, values in zip(run.table.column_names, zip(*added, strict=True), strict=True)
    )
    return Treated(Run.from_columns(*columns, lineage=run.lineage), len(added))


def drop_false_negatives(
    run: Run, relevant: Mapping[str, frozenset[str]], *, ratio: float
) -> Treated:
    """Return the run without unlabelled documents above `ratio` times the best positive's score.

    Such documents are probably relevant without a label. Queries whose positives are not in the
    run stay as they are.

    Raises:
        DataError: scores are negative, where a share of the best means nothing.

    """

    def kept() -> Iterator[NDArray[np.bool_]]:
        for query, docs, scores in run.lists():
            if len(scores) and scores.min() < 0:
                raise DataError(
                    f"query {query!r} has negative scores, so a share of the positive's score "
                    "means nothing. Use one retriever of positive scores, such as bm25."
                )
            positives = relevant.get(query, frozenset())
            labelled = np.array([doc in positives for doc in docs])
            if labelled.any():
                yield labelled | (scores <= np.float32(ratio * float(scores[labelled].max())))
            else:
                yield np.ones(len(docs), np.bool_)

    return _kept(run, kept())


def _kept(run: Run, masks: Iterable[Sequence[bool] | NDArray[np.bool_]]) -> Treated:
    """Return the rows of each list in turn that its mask keeps."""
    mask = np.concatenate([np.empty(0, np.bool_), *map(np.asarray, masks)])
    treated = replace(run, table=run.table.filter(pa.array(mask)))
    return Treated(treated, len(run) - len(treated))
