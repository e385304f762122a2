"""How well a student in training searches: real retrieval for the queries of a split.

The student is used where it is: in evaluation mode, without gradients, and the random number
generators stay as they were. Training is bit for bit the same as without a measurement.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.registry import STUDENT_KINDS, TEACHERS
from retrodistill.base.types import Pairs
from retrodistill.data.rankings.metrics import evaluate, parse_metric
from retrodistill.data.store.runs import Run
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.dense import evaluating
from retrodistill.models.students.reading import DEFAULT, Reading

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.models.students.kinds import StudentKind

DEPTH = 1000
"""Documents that are ranked for a query, for a metric without a cutoff."""

POOL_DEPTH = 100
"""Candidates of a query that are searched, where only a run's are."""

BLOCK = 2048
"""Documents that are encoded at a time."""

Rows = NDArray[np.int64]


class Development:
    """A metric of an exact search for the queries of a split.

    Every query with a judgement counts, as in `evaluate`. With `pool`, only a part of the
    documents is searched: the best POOL_DEPTH that this run lists for each query, and all that
    are relevant. That is faster, and optimistic: most of the documents that could be ranked too
    high are not there, so compare such values with each other only. A student that reads pairs
    needs a pool, and reranks each query's own list in it.

    Args:
        collection: documents, queries and judgements.
        split: whose queries to search for.
        metric: what to measure, `ndcg@10`.
        kind: kind of student, as `TrainSettings.student_kind`.
        queries: number of the split's queries, drawn at random with `seed` (None: all).
        pool: a run of these queries, for a search of a part of the documents.
        reading: how the student reads texts, if the model does not read less.
        seed: of the draw of queries.

    Raises:
        ConfigError: there is no such split or metric, or a student that reads pairs has no pool.
        DataError: the split has no judgements, or the pool none of its queries.

    """

    def __init__(
        self,
        collection: "Collection",
        split: str,
        metric: str = "ndcg@10",
        *,
        kind: str = "bi-encoder",
        queries: int | None = None,
        pool: Run | None = None,
        reading: Reading = DEFAULT,
        seed: int = 0,
    ) -> None:
        self.metric = parse_metric(metric)
        self._kind: StudentKind = STUDENT_KINDS[kind]
        self._reading = reading
        self._docs = collection.docs
        judged = collection.qrels(split)
        ids = [query for query in collection.query_ids(split) if judged[query]]
        if not ids:
            raise DataError(
                f"split {split!r} of {collection.name} has no judgements to measure by."
            )
        if queries is not None and queries < len(ids):
            drawn = np.random.default_rng(seed).permutation(len(ids))[:queries]
            ids = [ids[index] for index in np.sort(drawn)]
        self.query_ids = ids
        self._queries = [collection.queries.get(query) for query in ids]
        self.qrels = {query: judged[query] for query in ids}
        self._lists: list[Rows] | None = None
        self.rows = np.arange(len(collection.docs))
        """Rows of the documents that are searched."""
        self.doc_vectors: NDArray[np.float32] | None = None
        """Vectors of all documents (C, D), where the student's training leaves them as they are."""
        if pool is not None:
            self._lists = self._pooled(collection, pool.select(ids).top(POOL_DEPTH), split)
            self.rows = np.unique(np.concatenate(self._lists))
        elif self._kind.doc_scorer is None:
            raise ConfigError(
                f"a {self._kind.noun} cannot read every document for every query of --dev-split: "
                "give --scores that list candidates for its queries, and search only those."
            )

    def __call__(self, model: Any) -> float:
        """Return the metric's mean over the queries, of the model as it is now."""
        values = self.values(model)
        return sum(values.values()) / len(values)

    def values(self, model: Any) -> dict[str, float]:
        """Return the metric of each query, of the model as it is now."""
        run = self.search(model)
        return dict(evaluate(self.qrels, run, [self.metric])[str(self.metric)])

    def search(self, model: Any) -> Run:
        """Return the run of the best documents of each query, of the model as it is now.

        Raises:
            DataError: a score is not finite.

        """
        with undisturbed(model):
            if self._kind.doc_scorer is None:
                return self._reranked(model)
            texts = [query.full_text for query in self._queries]
            hits = _best(self._scorer(model, texts), self.rows, self._depth, len(texts))
        return self._run([rows for rows, _ in hits], [scores for _, scores in hits])

    def _scorer(self, model: Any, queries: Sequence[str]) -> Callable[[Rows], NDArray[np.float32]]:
        """Return what scores documents (D), given their rows, for the queries: (queries, D)."""
        options = self._as_read_by(model).options()
        vectors = self.doc_vectors
        if vectors is not None and self._kind.encoder is not None:
            query_vectors = self._kind.encoder(model, **options).encode_queries(queries)
            return lambda rows: query_vectors @ vectors[rows].T
        assert self._kind.doc_scorer is not None
        scorer = self._kind.doc_scorer(model, queries, **options)
        return lambda rows: scorer(self._docs.full_texts(rows))

    @property
    def _depth(self) -> int:
        return self.metric.cutoff or DEPTH

    def _as_read_by(self, model: Any) -> Reading:
        """Return the reading, without more tokens than the model is made for."""
        limit = self._reading.max_tokens
        return replace(
            self._reading, max_tokens=limit and min(limit, model.max_seq_length or limit)
        )

    def _pooled(self, collection: "Collection", pool: Run, split: str) -> list[Rows]:
        """Return the rows of each query's own candidates and relevant documents."""
        if not len(pool):
            raise DataError(
                f"the run that limits the search lists none of the queries of split {split!r}: "
                "score candidates for them as well, or search all documents."
            )
        relevant = collection.relevant(split)
        listed = {query: docs for query, docs, _ in pool.lists()}
        return [
            np.unique(collection.docs.rows([*listed.get(query, ()), *relevant[query]]))
            for query in self.query_ids
        ]

    def _reranked(self, model: Any) -> Run:
        """Return each query's own candidates in the order of a student that reads pairs."""
        assert self._lists is not None
        counts = [len(rows) for rows in self._lists]
        pairs = Pairs(
            self._queries,
            [self._docs[row] for row in self.rows.tolist()],
            np.repeat(np.arange(len(counts)), counts),
            np.searchsorted(self.rows, np.concatenate(self._lists)),
        )
        reading = replace(self._reading, max_tokens=self._reading.max_tokens or 512)
        teacher = TEACHERS[self._kind.teacher](model, options=ModelOptions(**reading.options()))
        scores = teacher.score(pairs)
        return self._run(self._lists, np.split(scores, np.cumsum(counts)[:-1])).top(self._depth)

    def _run(self, rows: Sequence[Rows], scores: Sequence[NDArray[np.float32]]) -> Run:
        flat = np.concatenate(scores)
        if not np.isfinite(flat).all():
            raise DataError(
                "the student gives NaN or infinity for a document of the development search: the "
                "training has diverged. Lower --learning-rate."
            )
        query_ids = np.repeat(np.array(self.query_ids, object), [len(hits) for hits in rows])
        run = Run.from_columns(query_ids.tolist(), self._docs.ids(np.concatenate(rows)), flat)
        return run.top(self._depth)


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Use a model within the block without a trace: no dropout, no gradients, no random numbers.

    Modules that were in training mode are so again afterwards, and the random number generators
    of Python, NumPy and torch are where they were.
    """
    import torch

    devices = list(range(torch.cuda.device_count()))
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices), evaluating(model), torch.no_grad():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _best(
    scorer: Callable[[Rows], NDArray[np.float32]], rows: Rows, depth: int, queries: int
) -> list[tuple[Rows, NDArray[np.float32]]]:
    """Return rows and scores of each query's `depth` best documents, and of all equal to the last.

    Which of the equal ones come first is for `Run` to say.
    """
    best = [(np.empty(0, np.int64), np.empty(0, np.float32))] * queries
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        for query, scores in enumerate(scorer(block)):
            hits = np.concatenate([best[query][0], block])
            hit_scores = np.concatenate([best[query][1], scores])
            if len(hits) > depth:
                kth = np.partition(hit_scores, len(hits) - depth)[len(hits) - depth]
                high = ~(hit_scores < kth)  # NaN stays, to be reported
                hits, hit_scores = hits[high], hit_scores[high]
            best[query] = hits, hit_scores
    return best
