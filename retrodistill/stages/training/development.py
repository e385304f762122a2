"""How well a student in training searches: real retrieval for the queries of a split.

The student is used where it is: in evaluation mode, without gradients, and the random number
generators stay as they were. Training goes on bit for bit as if nothing had been measured.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Pairs
from retrodistill.data.rankings.metrics import evaluate, parse_metric
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import evaluating

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

DEPTH = 1000
"""Documents that are found for a query, for a metric without a cutoff."""

BLOCK = 2048
"""Documents that are encoded at a time."""

Scorer = Callable[[Sequence[str]], NDArray[np.float32]]
"""Gives the scores (queries, texts) of documents' texts for queries that are fixed."""


class Development:
    """A metric of an exact search for the queries of a split.

    Every query with a judgement counts, as in `evaluate`. With `pool`, only a part of the
    documents is searched: the best `pool_depth` that this run lists for each query, and all that
    are relevant. That is faster, and optimistic: most of what could be wrongly found is not
    there, so compare such values with each other only. A cross-encoder, which has to read each
    pair, needs a pool, and reranks each query's own list in it.

    Args:
        collection: documents, queries and judgements.
        split: whose queries to search for.
        metric: what to measure, `ndcg@10`.
        kind: what student it is, as `TrainSettings.student_kind`.
        queries: so many of the split's queries, drawn at random with `seed` (None: all).
        pool: a run of these queries, for a search of a part of the documents.
        pool_depth: of this run's lists, the first so many.
        max_tokens: longest document, in tokens, if the model reads more (None: the model's own
            limit).
        batch_tokens: padded tokens of one pass through the encoder.
        precision: number type of the encoder's body.
        seed: of the draw of queries.

    Raises:
        ConfigError: there is no such split or metric, or a cross-encoder has no pool.
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
        pool_depth: int = 100,
        max_tokens: int | None = None,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.metric = parse_metric(metric)
        self._kind, self._max_tokens = kind, max_tokens
        self._settings: dict[str, Any] = {"batch_tokens": batch_tokens, "precision": precision}
        self._docs = collection.docs
        judged = collection.qrels(split)
        ids = [query for query in collection.query_ids(split) if judged[query]]
        if not ids:
            raise DataError(
                f"split {split!r} of {collection.name} has no judgements to measure by."
            )
        if queries is not None and queries < len(ids):
            drawn = np.random.default_rng(seed).permutation(len(ids))[:queries]
            ids = [ids[place] for place in np.sort(drawn)]
        self.query_ids = ids
        self._queries = [collection.queries.get(query) for query in ids]
        self._texts = [query.full_text for query in self._queries]
        self.qrels = {query: judged[query] for query in ids}
        self._lists: list[NDArray[np.int64]] | None = None
        self.rows = np.arange(len(collection.docs))
        """Rows of the documents that are searched."""
        if pool is not None:
            self._lists = self._pooled(collection, pool.select(ids).top(pool_depth), split)
            self.rows = np.unique(np.concatenate(self._lists))
        elif kind == "cross-encoder":
            raise ConfigError(
                "a cross-encoder cannot read every document for every query of --dev-split: "
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
            if self._kind == "cross-encoder":
                return self._reranked(model)
            scorer = self._scorer(model)
            found = _best(scorer, self._docs.full_texts, self.rows, self._depth, len(self._texts))
        return self._run([rows for rows, _ in found], [scores for _, scores in found])

    @property
    def _depth(self) -> int:
        return self.metric.cutoff or DEPTH

    def _pooled(self, collection: "Collection", pool: Run, split: str) -> list[NDArray[np.int64]]:
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

    def _scorer(self, model: Any) -> Scorer:
        scorers = {"bi-encoder": _dense, "sparse": _sparse, "late-interaction": _late}
        limit, own = self._max_tokens, model.max_seq_length
        cut = min(limit, own) if limit and own else limit
        return scorers[self._kind](model, self._texts, {"max_tokens": cut, **self._settings})

    def _reranked(self, model: Any) -> Run:
        """Return each query's own candidates in a cross-encoder's order."""
        from retrodistill.models.teachers.cross_encoder import CrossEncoderTeacher

        assert self._lists is not None
        counts = [len(rows) for rows in self._lists]
        pairs = Pairs(
            self._queries,
            [self._docs[row] for row in self.rows.tolist()],
            np.repeat(np.arange(len(counts)), counts),
            np.searchsorted(self.rows, np.concatenate(self._lists)),
        )
        reader = CrossEncoderTeacher(model, max_tokens=self._max_tokens or 512, **self._settings)
        found = np.split(reader.score(pairs), np.cumsum(counts)[:-1])
        return self._run(self._lists, found).top(self._depth)

    def _run(self, rows: Sequence[NDArray[np.int64]], scores: Sequence[NDArray[np.float32]]) -> Run:
        flat = np.concatenate(scores)
        if not np.isfinite(flat).all():
            raise DataError(
                "the student gives NaN or infinity for a document of the development search: the "
                "training has diverged. Lower --learning-rate."
            )
        query_ids = np.repeat(np.array(self.query_ids, object), [len(own) for own in rows])
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
    scorer: Scorer,
    texts: Callable[[NDArray[np.int64]], Sequence[str]],
    rows: NDArray[np.int64],
    depth: int,
    queries: int,
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return rows and scores of each query's `depth` best documents, and of all equal to the last.

    Which of the equal ones come first is for `Run` to say.
    """
    kept = [(np.empty(0, np.int64), np.empty(0, np.float32))] * queries
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        for query, found in enumerate(scorer(texts(block))):
            both = np.concatenate([kept[query][0], block]), np.concatenate([kept[query][1], found])
            if len(both[1]) > depth:
                kth = np.partition(both[1], len(both[1]) - depth)[len(both[1]) - depth]
                near = ~(both[1] < kth)  # NaN stays, to be told
                both = both[0][near], both[1][near]
            kept[query] = both
    return kept


def _dense(model: Any, queries: Sequence[str], settings: dict[str, Any]) -> Scorer:
    from retrodistill.models.students.dense import DenseEncoder

    encoder = DenseEncoder(model, **settings)
    vectors = encoder.encode_queries(queries)
    return lambda texts: vectors @ encoder.encode_docs(texts).T


def _sparse(model: Any, queries: Sequence[str], settings: dict[str, Any]) -> Scorer:
    from retrodistill.models.students.sparse import SparseTextEncoder

    encoder = SparseTextEncoder(model, **settings)
    vectors = encoder.encode_queries(queries)

    def score(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray((vectors @ encoder.encode_docs(texts).T).toarray(), np.float32)

    return score


def _late(model: Any, queries: Sequence[str], settings: dict[str, Any]) -> Scorer:
    from retrodistill.models.students.late_interaction import LateInteractionEncoder
    from retrodistill.models.teachers.late_interaction import QueryTokens, maxsim

    encoder = LateInteractionEncoder(model, **settings)
    tokens = QueryTokens.of(encoder.encode_queries(queries), len(queries))

    def score(texts: Sequence[str]) -> NDArray[np.float32]:
        scores = np.empty((len(queries), len(texts)), np.float32)
        for batch in encoder.encode_docs(texts):
            count = len(batch.places)
            every = np.tile(np.arange(len(queries)), count)
            found = maxsim(tokens, every, batch, np.full(count, len(queries)))
            scores[:, batch.places] = found.reshape(count, len(queries)).T
        if encoder.averaged:
            scores /= tokens.counts[:, None]
        return scores

    return score
