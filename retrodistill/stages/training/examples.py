"""What comes to a batch, in order: lists of candidates, or texts alone.

Every item is a function of (seed, position): a training that resumes at step 5,000 continues at
once, with the batches that it would have had.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.models.students.routes import Side
from retrodistill.stages.training.candidates import CandidateLists
from retrodistill.stages.training.sampling import ORDERS, Rows, Traits, parse_draw


@dataclass(frozen=True, slots=True)
class Example:
    """One query of a batch with its drawn documents, positives first."""

    query: int
    docs: Rows
    teacher_scores: NDArray[np.float32]
    log_weights: NDArray[np.float32]
    """Logarithm of how many candidates each document stands for: 0 for itself alone."""
    labels: NDArray[np.bool_]
    relevant: frozenset[int]
    doubtful: frozenset[int]


class Schedule(Sequence[Example]):
    """Every example of a whole training run, in order; item i is drawn when it is asked for.

    An example has up to `per_query` documents, of which up to `positives` are positives.
    `order` and `draw` are names of `sampling.ORDERS` and `sampling.DRAWS`, a draw perhaps with
    settings. `batch_size` (queries of one step, over all processes) and `clusters` (a number for
    each of the candidates) are for orders of whole batches.

    Raises:
        ConfigError: the order or the draw is unknown, or needs what is not there.

    """

    def __init__(
        self,
        candidates: CandidateLists,
        length: int,
        *,
        per_query: int,
        positives: int = 1,
        seed: int,
        order: str = "shuffled",
        draw: str = "uniform",
        batch_size: int = 1,
        clusters: Rows | None = None,
    ) -> None:
        for what, name, plain in (
            ("order", order, order != "hard-first"),
            ("draw", draw, draw == "uniform"),
        ):
            if not (plain or candidates.scored):
                raise ConfigError(f"{what} {name!r} goes by teacher scores: give --scores.")
        if clusters is not None and len(clusters) != len(candidates):
            raise DataError(f"{len(clusters):,} clusters given for {len(candidates):,} queries.")
        self._candidates = candidates
        self._length = length
        self._per_query, self._positives = per_query, positives
        self._seed = seed
        self._order = ORDERS[order]
        self._draw = parse_draw(draw)
        self._traits = Traits(margins=candidates.margins, batch_size=batch_size, clusters=clusters)
        self._orders = {0: self._ordered(0)}

    def __len__(self) -> int:
        return self._length

    def _ordered(self, epoch: int) -> Rows:
        start = epoch * len(self._candidates)
        order: Rows = self._order(self._traits, start, np.random.default_rng((self._seed, epoch)))
        return order

    def __getitem__(self, position: int) -> Example:  # type: ignore[override]
        if not 0 <= position < self._length:
            raise IndexError(position)
        epoch, place = divmod(position, len(self._candidates))
        if epoch not in self._orders:
            self._orders = {epoch: self._ordered(epoch)}
        chosen = self._candidates[int(self._orders[epoch][place])]
        random = np.random.default_rng((self._seed, epoch, 1 + place))
        positives = self._drawn_positives(len(chosen.positives), random)
        positive_scores = chosen.positive_scores[positives]
        drawn, log_weights = self._draw(
            chosen.pool_scores.astype(np.float64),
            float(positive_scores[0]),
            self._per_query - len(positives),
            random,
        )
        docs = np.concatenate([chosen.positives[positives], chosen.pool[drawn]])
        return Example(
            chosen.query,
            docs,
            np.concatenate([positive_scores, chosen.pool_scores[drawn]]),
            np.concatenate([np.zeros(len(positives)), log_weights]).astype(np.float32),
            np.isin(docs, list(chosen.relevant)),
            chosen.relevant,
            chosen.doubtful,
        )

    def _drawn_positives(self, count: int, random: np.random.Generator) -> Rows:
        """Return places of a query's positives: one at random, and others beside it."""
        first = int(random.integers(count))
        if self._positives == 1 or count == 1:
            return np.array([first])
        others = random.permutation(np.delete(np.arange(count), first))
        return np.array([first, *others[: self._positives - 1]])


class Text(NamedTuple):
    """A text of a collection: a query's or a document's row."""

    side: Side
    row: int


class TextSchedule(Sequence[Text]):
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
        """Return documents' rows, and queries' places counted on from there, in order."""
        random = np.random.default_rng((self._seed, epoch))
        sides = [random.permutation(count) for count in (self._docs, len(self._queries))]
        moments = np.concatenate([(np.arange(len(s)) + 0.5) / max(1, len(s)) for s in sides])
        rows = np.concatenate([sides[0], self._docs + sides[1]])
        return rows[np.argsort(moments, kind="stable")]

    def __getitem__(self, position: int) -> Text:  # type: ignore[override]
        if not 0 <= position < self._length:
            raise IndexError(position)
        epoch, place = divmod(position, self._docs + len(self._queries))
        if epoch not in self._orders:
            self._orders = {epoch: self._ordered(epoch)}
        number = int(self._orders[epoch][place])
        if number < self._docs:
            return Text("document", number)
        return Text("query", int(self._queries[number - self._docs]))
