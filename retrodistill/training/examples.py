"""What one query brings to a batch, and the whole run of examples that a training sees.

Candidates lie in columns, so that half a million queries are gathered in seconds, and every example
is a function of (seed, position): a run that resumes at step 5,000 continues at once, with the
batches it would have had.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.errors import ConfigError, DataError
from retrodistill.progress import say
from retrodistill.training.sampling import ORDERS, Floats, Rows, Traits, parse_draw

if TYPE_CHECKING:
    from retrodistill.datasets import Collection
    from retrodistill.store.runs import Run

Labels = Mapping[str, Sequence[str]]


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
    doubtful: frozenset[int]
    """Documents that the teacher finds too good to be called negatives."""


@dataclass(frozen=True, slots=True)
class Example:
    """One query of a batch with its drawn documents, the positive first."""

    query: int
    docs: Rows
    teacher_scores: NDArray[np.float32]
    log_weights: NDArray[np.float32]
    """Logarithm of how many candidates each document stands for: 0 for itself alone."""
    labels: NDArray[np.bool_]
    relevant: frozenset[int]
    doubtful: frozenset[int]


@dataclass(frozen=True, eq=False, slots=True)
class Ragged:
    """Lists of different lengths: list i is `values[bounds[i] : bounds[i + 1]]`."""

    values: NDArray[Any]
    bounds: Rows

    @classmethod
    def of(cls, owners: NDArray[np.integer], values: NDArray[Any], count: int) -> "Ragged":
        """Return the lists of `count` owners, whose values stand together in order."""
        ends = np.cumsum(np.bincount(owners, minlength=count))
        return cls(values, np.concatenate([np.zeros(1, np.int64), ends]))

    def __getitem__(self, place: int) -> NDArray[Any]:
        return self.values[self.bounds[place] : self.bounds[place + 1]]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CandidateLists(Sequence[Candidates]):
    """The candidates of all queries, in columns; an item is made when it is asked for."""

    queries: Rows
    positives: Ragged
    pool: Ragged
    positive_scores: Ragged
    pool_scores: Ragged
    relevant: Ragged
    doubtful: Ragged
    scored: bool
    """Whether there is a teacher; if not, pools are empty."""

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, place: int) -> Candidates:  # type: ignore[override]
        place = range(len(self))[place]
        return Candidates(
            int(self.queries[place]),
            self.positives[place],
            self.pool[place],
            self.positive_scores[place],
            self.pool_scores[place],
            frozenset(self.relevant[place].tolist()),
            frozenset(self.doubtful[place].tolist()),
        )

    @property
    def margins(self) -> Floats:
        """Return each query's best positive score less its best other one; 0 without a teacher."""
        if not self.scored:
            return np.zeros(len(self))
        best, other = (
            lists.values[lists.bounds[:-1]].astype(np.float64)
            for lists in (self.positive_scores, self.pool_scores)
        )
        return best - other


def gather(
    collection: "Collection",
    split: str,
    scores: "Run | None",
    *,
    pool: int,
    drop_weak_queries: float = 0.0,
    false_negatives: float | None = None,
) -> CandidateLists:
    """Return the candidates of each query that can be learned from.

    With scores, these are the queries that were scored, labelled or not: of an unlabelled one,
    the teacher's best takes the positive's place. Without, the labelled queries of the split.
    How many queries are left out, and why, is told.

    `drop_weak_queries` leaves out this share of the queries, those whose best teacher score is
    lowest: perhaps nothing answers them. `false_negatives` marks every candidate that scores
    above this share of the query's best positive as `doubtful`. It is no negative of that query
    then, wherever in a batch it comes from, but the teacher's score of it still teaches. A share
    needs scores that start at 0, so logits are refused.

    Source: the two filters as in Tamber et al. 2025, "Teaching Dense Retrieval Models to
    Specialize with Listwise Distillation and LLM Data Augmentation" (0.25; 0.6 of the best, on
    min-max'd scores); 0.95 of the positive in Moreira et al. 2024, arXiv:2407.15831 (NV-Retriever).

    Raises:
        ConfigError: a filter is out of range, or asks for what the scores are not.
        DataError: no query remains.

    """
    _check_filters(scores, drop_weak_queries, false_negatives)
    relevant = collection.relevant(split) if split in collection.splits else {}
    if scores is None:
        found = _from_labels(collection, relevant)
    else:
        found = _from_scores(collection, relevant, scores, pool, drop_weak_queries, false_negatives)
    if not len(found):
        raise DataError(
            f"no query of split {split!r} can be learned from: there must be relevant documents, "
            "or scored lists of two documents at least."
        )
    return found


def _check_filters(scores: "Run | None", weak: float, ratio: float | None) -> None:
    if not 0 <= weak < 1:
        raise ConfigError(f"drop_weak_queries must be from 0 to below 1, but it is {weak}.")
    if ratio is not None and not ratio > 0:
        raise ConfigError(f"false_negatives must be above 0, but it is {ratio}.")
    if scores is None and (weak or ratio is not None):
        raise ConfigError("drop_weak_queries and false_negatives need teacher scores: --scores.")
    if scores is not None and ratio is not None:
        lowest = float(scores.table["score"].to_numpy().min(initial=0.0))
        if lowest < 0:
            raise ConfigError(
                f"false_negatives is a share of the positive's score, so scores must start at 0, "
                f"but the lowest is {lowest:.4g}. Bring them from 0 to 1 first: "
                "`retrodistill.score --ensemble STORE --combine minmax`."
            )


def _from_labels(collection: "Collection", relevant: Labels) -> CandidateLists:
    queries = [query for query, docs in relevant.items() if docs]
    docs = _label_lists(collection, relevant, queries)
    nothing = Ragged(np.zeros(0, np.int64), np.zeros(len(queries) + 1, np.int64))
    return CandidateLists(
        queries=collection.queries.rows(queries),
        positives=docs,
        pool=nothing,
        positive_scores=Ragged(np.zeros(len(docs.values), np.float32), docs.bounds),
        pool_scores=Ragged(np.zeros(0, np.float32), nothing.bounds),
        relevant=docs,
        doubtful=nothing,
        scored=False,
    )


def _label_lists(collection: "Collection", relevant: Labels, queries: Iterable[str]) -> Ragged:
    """Return the rows of each query's relevant documents."""
    lists = [relevant.get(query, ()) for query in queries]
    owners = np.repeat(np.arange(len(lists)), [len(docs) for docs in lists])
    rows = collection.docs.rows([doc for docs in lists for doc in docs])
    return Ragged.of(owners, rows, len(lists))


def _from_scores(
    collection: "Collection",
    relevant: Labels,
    scores: "Run",
    pool: int,
    weak: float,
    ratio: float | None,
) -> CandidateLists:
    from retrodistill.arithmetic.lists import numbered

    query_ids, sizes = scores.query_ids, scores.list_sizes
    count, starts = len(sizes), np.cumsum(sizes) - sizes
    owners = np.repeat(np.arange(count), sizes)
    doc_ids, (codes,) = numbered([scores], "doc_id")
    docs = collection.docs.rows(doc_ids.to_pylist())[codes]
    values = scores.table["score"].to_numpy()
    labels = _label_lists(collection, relevant, query_ids)

    positive = _are_labelled(owners, docs, labels, len(collection.docs))
    labelled = np.diff(labels.bounds) > 0
    positive[starts[~labelled]] = True
    hits = np.bincount(owners[positive], minlength=count)
    kept = (hits > 0) & (hits < sizes)
    _tell(
        int((hits == 0).sum()),
        "none of their relevant documents was scored. Mine with --add-positives to keep them.",
    )
    _tell(int((hits == sizes).sum()), "they have no candidate beside a positive.")
    if weak and kept.any():
        best = values[starts]
        limit = float(np.quantile(best[kept], weak))
        dropped = kept & (best < limit)
        _tell(int(dropped.sum()), f"their best teacher score is below {limit:.4g}.")
        kept &= ~dropped

    places = np.flatnonzero(kept[owners])
    owners = (np.cumsum(kept) - 1)[owners[places]]
    docs, values, positive = docs[places], values[places], positive[places]
    count = int(kept.sum())

    def lists(chosen: NDArray[np.bool_]) -> tuple[Ragged, Ragged]:
        rows = Ragged.of(owners[chosen], docs[chosen], count)
        return rows, Ragged(values[chosen], rows.bounds)

    positives, positive_scores = lists(positive)
    doubtful = np.zeros(len(docs), np.bool_)
    if ratio is not None:
        best = positive_scores.values[positive_scores.bounds[:-1]]
        doubtful = ~positive & (values > ratio * best[owners])
        say(
            f"{int(doubtful.sum()):,} candidates of {len(np.unique(owners[doubtful])):,} queries "
            f"score above {ratio:g} of the best positive: no negatives."
        )
    others, other_scores = lists(~positive)
    ranks = np.arange(len(others.values)) - np.repeat(others.bounds[:-1], np.diff(others.bounds))
    first = ranks < pool
    pools = Ragged.of(owners[~positive][first], others.values[first], count)
    return CandidateLists(
        queries=collection.queries.rows(query_ids)[kept],
        positives=positives,
        pool=pools,
        positive_scores=positive_scores,
        pool_scores=Ragged(other_scores.values[first], pools.bounds),
        relevant=_selected(labels, kept),
        doubtful=lists(doubtful)[0],
        scored=True,
    )


def _are_labelled(owners: Rows, docs: Rows, labels: Ragged, width: int) -> NDArray[np.bool_]:
    """Tell which of the (owner, document) pairs are among the labels."""
    known = np.repeat(np.arange(len(labels.bounds) - 1), np.diff(labels.bounds))
    keys = np.sort(known * width + labels.values)
    if not len(keys):
        return np.zeros(len(docs), np.bool_)
    wanted = owners * width + docs
    found: NDArray[np.bool_] = keys[np.searchsorted(keys, wanted).clip(max=len(keys) - 1)] == wanted
    return found


def _selected(lists: Ragged, kept: NDArray[np.bool_]) -> Ragged:
    sizes = np.diff(lists.bounds)
    owners = np.repeat(np.arange(int(kept.sum())), sizes[kept])
    return Ragged.of(owners, lists.values[np.repeat(kept, sizes)], int(kept.sum()))


def _tell(count: int, why: str) -> None:
    if count:
        say(f"{count:,} queries are left out: {why}")


class Schedule(Sequence[Example]):
    """Every example of a whole training run, in order; item i is drawn when it is asked for.

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
        seed: int,
        order: str = "shuffled",
        draw: str = "uniform",
        batch_size: int = 1,
        clusters: Rows | None = None,
    ) -> None:
        for what, name, plain in (("order", order, order != "hard-first"),
                                  ("draw", draw, draw == "uniform")):  # fmt: skip
            if not (plain or candidates.scored):
                raise ConfigError(f"{what} {name!r} goes by teacher scores: give --scores.")
        if clusters is not None and len(clusters) != len(candidates):
            raise DataError(f"{len(clusters):,} clusters given for {len(candidates):,} queries.")
        self._candidates = candidates
        self._length = length
        self._per_query = per_query
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
        first = int(random.integers(len(chosen.positives)))
        positive = chosen.positive_scores[first : first + 1]
        drawn, log_weights = self._draw(
            chosen.pool_scores.astype(np.float64), float(positive[0]), self._per_query - 1, random
        )
        docs = np.concatenate([chosen.positives[first : first + 1], chosen.pool[drawn]])
        labels = np.zeros(len(docs), np.bool_)
        labels[0] = int(docs[0]) in chosen.relevant
        weights = np.zeros(len(docs), np.float32)
        weights[1:] = log_weights
        return Example(
            chosen.query,
            docs,
            np.concatenate([positive, chosen.pool_scores[drawn]]),
            weights,
            labels,
            chosen.relevant,
            chosen.doubtful,
        )
