"""What one query brings to a batch, and the order in which queries come.

The order and every draw are functions of (seed, position), not of what was drawn before. So a
run that resumes at step 5,000 continues at once, with the batches it would have had.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.errors import DataError
from retrodistill.progress import say

if TYPE_CHECKING:
    from retrodistill.datasets import Collection
    from retrodistill.store.runs import Run

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """All that is known of one query: document rows of the collection."""

    query: int
    positives: Rows
    """Labelled relevant; with teacher scores given, only those that have one."""
    pool: Rows
    """Other candidates, best teacher score first."""
    positive_scores: NDArray[np.float32]
    pool_scores: NDArray[np.float32]
    relevant: frozenset[int]
    """Every labelled relevant document, scored or not: never a negative."""


@dataclass(frozen=True, slots=True)
class Example:
    """One query of a batch with its drawn documents, the positive first."""

    query: int
    docs: Rows
    teacher_scores: NDArray[np.float32]
    labels: NDArray[np.bool_]
    relevant: frozenset[int]


def gather(
    collection: "Collection", split: str, scores: "Run | None", *, pool: int
) -> list[Candidates]:
    """Return the candidates of each query that can be learned from.

    With scores, these are the queries that were scored, labelled or not: of an unlabelled one,
    the teacher's best takes the positive's place. Without, the labelled queries of the split.

    Raises:
        DataError: no query remains.

    """
    relevant = collection.relevant(split) if split in collection.splits else {}
    found: list[Candidates] = []
    unscored = 0
    if scores is None:
        queries = [query for query, docs in relevant.items() if docs]
        for row, query in zip(collection.queries.rows(queries), queries, strict=True):
            docs = collection.docs.rows(relevant[query])
            nothing = np.zeros(0, np.int64)
            zeros = np.zeros(len(docs), np.float32)
            found.append(
                Candidates(int(row), docs, nothing, zeros, zeros[:0], frozenset(docs.tolist()))
            )
    else:
        query_rows = dict(
            zip(scores.query_ids, collection.queries.rows(scores.query_ids), strict=True)
        )
        for query, doc_ids, values in scores.lists():
            docs = collection.docs.rows(doc_ids)
            known = collection.docs.rows(relevant.get(query, []))
            positive = np.isin(docs, known)
            if len(known) and not positive.any():
                unscored += 1
            if not positive.any():
                positive[:1] = not len(known)
            if not positive.any() or positive.all():
                continue
            found.append(
                Candidates(
                    int(query_rows[query]),
                    docs[positive],
                    docs[~positive][:pool],
                    values[positive],
                    values[~positive][:pool],
                    frozenset(known.tolist()),
                )
            )
    if unscored:
        say(
            f"{unscored:,} queries are left out: none of their relevant documents was scored. "
            "Mine with --add-positives to keep them."
        )
    if not found:
        raise DataError(
            f"no query of split {split!r} can be learned from: there must be relevant documents, "
            "or scored lists of two documents at least."
        )
    return found


class Schedule(Sequence[Example]):
    """Every example of a whole training run, in order; item i is drawn when it is asked for."""

    def __init__(
        self, candidates: Sequence[Candidates], length: int, *, per_query: int, seed: int
    ) -> None:
        self._candidates = candidates
        self._length = length
        self._per_query = per_query
        self._seed = seed
        self._orders: dict[int, Rows] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> Example:  # type: ignore[override]
        if not 0 <= position < self._length:
            raise IndexError(position)
        epoch, place = divmod(position, len(self._candidates))
        if epoch not in self._orders:
            shuffle = np.random.default_rng((self._seed, epoch))
            self._orders = {epoch: shuffle.permutation(len(self._candidates))}
        chosen = self._candidates[int(self._orders[epoch][place])]
        draw = np.random.default_rng((self._seed, epoch, 1 + place))
        first = int(draw.integers(len(chosen.positives)))
        rest = draw.permutation(len(chosen.pool))[: self._per_query - 1]
        docs = np.concatenate([chosen.positives[first : first + 1], chosen.pool[rest]])
        teacher = np.concatenate(
            [chosen.positive_scores[first : first + 1], chosen.pool_scores[rest]]
        )
        labels = np.isin(docs, list(chosen.relevant))
        return Example(chosen.query, docs, teacher, labels, chosen.relevant)
