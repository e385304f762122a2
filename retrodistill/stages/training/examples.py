"""What comes to a batch, in order: lists of candidates, or texts alone.

Every item is a function of (seed, position): a training that resumes at step 5,000 continues at
once, with the batches of an uninterrupted one.
"""

from collections.abc import Sequence

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.models.students.batches import TrainingExample, TrainingText
from retrodistill.stages.training.candidate_lists import CandidateLists
from retrodistill.stages.training.sampling import (
    QUERY_ORDERS,
    Rows,
    Traits,
    parse_negative_sampling,
)


class Schedule(Sequence[TrainingExample]):
    """Every example of a whole training run, in order; item i is drawn on access.

    An example has up to `per_query` documents, of which up to `positives` are positives.
    `query_order` and `negative_sampling` are names of `sampling.QUERY_ORDERS` and
    `sampling.NEGATIVE_SAMPLINGS`, the second perhaps with settings. `traits` are what the order
    depends on (default: the teacher's margins alone).

    Raises:
        ConfigError: the order or the sampling is unknown, or needs what is not there.

    """

    def __init__(
        self,
        candidates: CandidateLists,
        length: int,
        *,
        per_query: int,
        positives: int = 1,
        seed: int,
        query_order: str = "shuffled",
        negative_sampling: str = "uniform",
        traits: Traits | None = None,
    ) -> None:
        for setting, name, goes_by_scores in (
            ("query order", query_order, query_order == "hard-first"),
            ("negative sampling", negative_sampling, negative_sampling != "uniform"),
        ):
            if goes_by_scores and not candidates.scored:
                raise ConfigError(f"{setting} {name!r} needs teacher scores: give --scores.")
        self._traits = traits or Traits(margins=candidates.margins)
        clusters = self._traits.clusters
        if clusters is not None and len(clusters) != len(candidates):
            raise DataError(f"{len(clusters):,} clusters given for {len(candidates):,} queries.")
        self._candidates = candidates
        self._length = length
        self._per_query, self._positives = per_query, positives
        self._seed = seed
        self._query_order = QUERY_ORDERS[query_order]
        self._sample = parse_negative_sampling(negative_sampling)
        self._orders = {0: self._ordered(0)}

    def __len__(self) -> int:
        return self._length

    def _ordered(self, epoch: int) -> Rows:
        start = epoch * len(self._candidates)
        random = np.random.default_rng((self._seed, epoch))
        order: Rows = self._query_order(self._traits, start, random)
        return order

    def __getitem__(self, position: int) -> TrainingExample:  # type: ignore[override]
        if not 0 <= position < self._length:
            raise IndexError(position)
        # The query whose turn it is.
        epoch, offset = divmod(position, len(self._candidates))
        if epoch not in self._orders:
            self._orders = {epoch: self._ordered(epoch)}
        query = self._candidates[int(self._orders[epoch][offset])]
        # Its positives, then its negatives.
        random = np.random.default_rng((self._seed, epoch, 1 + offset))
        positives = self._drawn_positives(len(query.positives), random)
        positive_scores = query.positive_scores[positives]
        negatives, log_weights = self._sample(
            query.pool_scores.astype(np.float64),
            float(positive_scores[0]),
            self._per_query - len(positives),
            random,
        )
        docs = np.concatenate([query.positives[positives], query.pool[negatives]])
        return TrainingExample(
            query.query,
            docs,
            np.concatenate([positive_scores, query.pool_scores[negatives]]),
            np.concatenate([np.zeros(len(positives)), log_weights]).astype(np.float32),
            np.isin(docs, list(query.relevant)),
            query.relevant,
            query.doubtful,
        )

    def _drawn_positives(self, count: int, random: np.random.Generator) -> Rows:
        """Return positions among a query's positives: one at random, and others beside it."""
        drawn = int(random.integers(count))
        if self._positives == 1 or count == 1:
            return np.array([drawn])
        remaining = random.permutation(np.delete(np.arange(count), drawn))
        return np.array([drawn, *remaining[: self._positives - 1]])


class TextSchedule(Sequence[TrainingText]):
    """Every text alone, for losses that compare vectors and need no list.

    An epoch brings each text once. Queries are spread evenly among the documents, so that batches
    have the same mixture.
    """

    def __init__(self, queries: Rows, docs: int, length: int, *, seed: int) -> None:
        self._queries, self._docs = queries, docs
        self._length, self._seed = length, seed
        self._orders = {0: self._ordered(0)}

    def __len__(self) -> int:
        return self._length

    def _ordered(self, epoch: int) -> Rows:
        """Return documents' rows, and queries' positions counted on from there, in order."""
        random = np.random.default_rng((self._seed, epoch))
        sides = [random.permutation(count) for count in (self._docs, len(self._queries))]
        moments = np.concatenate([(np.arange(len(s)) + 0.5) / max(1, len(s)) for s in sides])
        rows = np.concatenate([sides[0], self._docs + sides[1]])
        return rows[np.argsort(moments, kind="stable")]

    def __getitem__(self, position: int) -> TrainingText:  # type: ignore[override]
        if not 0 <= position < self._length:
            raise IndexError(position)
        epoch, offset = divmod(position, self._docs + len(self._queries))
        if epoch not in self._orders:
            self._orders = {epoch: self._ordered(epoch)}
        number = int(self._orders[epoch][offset])
        if number < self._docs:
            return TrainingText("document", number)
        return TrainingText("query", int(self._queries[number - self._docs]))
