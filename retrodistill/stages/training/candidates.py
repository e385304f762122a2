"""The candidates of every query that is trained on, gathered from labels and teacher scores.

They lie in columns, so that half a million queries are gathered in seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Positives
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.stages.training.sampling import Floats, Rows

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts
    from retrodistill.data.store.runs import Run

Labels = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Candidates:
    """All that is known of one query: document rows of the collection."""

    query: int
    positives: Rows
    """Documents to draw positives from; with teacher scores given, only those that have one."""
    pool: Rows
    """Other candidates, best teacher score first."""
    positive_scores: NDArray[np.float32]
    pool_scores: NDArray[np.float32]
    relevant: frozenset[int]
    """Every relevant document, scored or not: never a negative."""
    doubtful: frozenset[int]
    """Documents that the teacher finds too good to be called negatives."""


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
    def labelled(self) -> NDArray[np.bool_]:
        """Return which queries have a relevant document."""
        return np.diff(self.relevant.bounds) > 0

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
    positives: Positives = "labels",
    unlabelled_splits: Sequence[str] = (),
    dev_split: str | None = None,
    drop_weak_queries: float = 0.0,
    false_negatives: float | None = None,
) -> CandidateLists:
    """Return the candidates of each query to train on.

    Without scores, these are the labelled queries of the split. With scores, they are the scored
    queries: those of the split, those that no split judges, and those of `unlabelled_splits`,
    whose labels are not used. Queries of `dev_split` are never among them. How many queries are
    skipped, and why, is logged.

    `positives` says which documents are a query's positives. `labels`: those that the split
    labels; of an unlabelled query the teacher's best takes their place, without a label.
    `teacher`: the teacher's best of every query, which then counts as labelled.

    `drop_weak_queries` skips this share of the queries, those whose best teacher score is
    lowest: perhaps nothing answers them. `false_negatives` marks every candidate that scores
    above this share of the query's best positive as `doubtful`. It is no negative of that query
    then, wherever in a batch it comes from, but the teacher's score of it still teaches. A share
    needs scores that start at 0, so logits are refused.

    Source: the two filters and `positives="teacher"` as in Tamber et al. 2025, "Teaching Dense
    Retrieval Models to Specialize with Listwise Distillation and LLM Data Augmentation" (0.25; 0.6
    of the best, on min-max'd scores); 0.95 of the positive in Moreira et al. 2024,
    arXiv:2407.15831 (NV-Retriever).

    Raises:
        ConfigError: a filter is out of range, or asks for what the scores are not.
        DataError: no query remains.

    """
    _check_filters(scores, drop_weak_queries, false_negatives)
    if scores is None and positives == "teacher":
        raise ConfigError("--positives teacher needs teacher scores: give --scores.")
    relevant = collection.relevant(split) if split in collection.splits else {}
    others = judged_elsewhere(collection, split, unlabelled_splits, dev_split=dev_split)
    if scores is None:
        skipped = _skipped(relevant, others)
        relevant = {query: docs for query, docs in relevant.items() if query not in skipped}
        lists = _from_labels(collection, relevant)
    else:
        skipped = _skipped(scores.query_ids, others)
        scores = scores.select(query for query in scores.query_ids if query not in skipped)
        lists = _from_scores(
            collection, relevant, scores, pool, positives, drop_weak_queries, false_negatives
        )
    if not len(lists):
        raise DataError(
            f"no query of split {split!r} can be learned from: there must be relevant documents, "
            "or scored lists of two documents at least."
        )
    return lists


def judged_elsewhere(
    collection: "Collection",
    split: str,
    unlabelled_splits: Sequence[str] = (),
    *,
    dev_split: str | None = None,
) -> dict[str, set[str]]:
    """Return, by split, the queries that are to measure with rather than to train on.

    Those are the queries of `dev_split`, and those of splits that are neither `split` nor among
    `unlabelled_splits`; and queries of the same text under another id, as a query log has them.
    What `split` judges too is trained on, unless `dev_split` names it.

    Raises:
        ConfigError: there is no such unlabelled split.

    """
    for name in unlabelled_splits:
        collection.qrels(name)  # raises if there is no such split
    trained = set(collection.qrels(split)) if split in collection.splits else set()
    others = {
        name: set(collection.qrels(name)) - trained
        for name in collection.splits
        if name not in {split, dev_split, *unlabelled_splits}
    }
    if dev_split is not None:
        others = {dev_split: set(collection.qrels(dev_split)), **others}
    if any(others.values()):
        _add_equal_texts(collection.queries, others, trained)
    return others


def _add_equal_texts(queries: "Texts", others: Mapping[str, set[str]], trained: set[str]) -> None:
    """Add to each set the queries whose texts are the same but for case and spaces."""
    texts = {query.id: " ".join(query.full_text.casefold().split()) for query in queries}
    owners: dict[str, str] = {}
    for split, judged in others.items():
        owners |= dict.fromkeys((texts[query] for query in judged if query in texts), split)
    for query, text in texts.items():
        if text in owners and query not in trained:
            others[owners[text]].add(query)


def _skipped(queries: Iterable[str], others: Mapping[str, set[str]]) -> set[str]:
    """Return which of the queries measure elsewhere; log how many of which split."""
    left, skipped = set(queries), set()
    for split, judged in others.items():
        both = left & judged
        _tell(
            len(both),
            f"split {split!r} judges them, or queries of the same text. To train on them without "
            f"its labels, pass --unlabelled-split {split}.",
        )
        left -= both
        skipped |= both
    return skipped


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
                "`retrodistill fuse --run STORE --norm percentiles --as-store`."
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
    positives: Positives,
    weak: float,
    ratio: float | None,
) -> CandidateLists:
    from retrodistill.data.rankings.segments import numbered

    query_ids, sizes = scores.query_ids, scores.list_sizes
    count, starts = len(sizes), np.cumsum(sizes) - sizes
    owners = np.repeat(np.arange(count), sizes)
    doc_ids, (codes,) = numbered([scores], "doc_id")
    docs = collection.docs.rows(doc_ids.to_pylist())[codes]
    values = scores.table["score"].to_numpy()
    labels = _label_lists(collection, relevant, query_ids)

    if positives == "teacher":
        positive = np.zeros(len(docs), np.bool_)
        positive[starts] = True
        labels = _with_one_more(labels, docs[starts])
    else:
        positive = _are_labelled(owners, docs, labels, len(collection.docs))
        positive[starts[np.diff(labels.bounds) == 0]] = True
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

    positive_docs, positive_scores = lists(positive)
    doubtful = np.zeros(len(docs), np.bool_)
    if ratio is not None:
        best = positive_scores.values[positive_scores.bounds[:-1]]
        doubtful = ~positive & (values > ratio * best[owners])
        log.info(
            f"{int(doubtful.sum()):,} candidates of {len(np.unique(owners[doubtful])):,} queries "
            f"score above {ratio:g} of the best positive: no negatives."
        )
    others, other_scores = lists(~positive)
    ranks = np.arange(len(others.values)) - np.repeat(others.bounds[:-1], np.diff(others.bounds))
    first = ranks < pool
    pools = Ragged.of(owners[~positive][first], others.values[first], count)
    return CandidateLists(
        queries=collection.queries.rows(query_ids)[kept],
        positives=positive_docs,
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


def _with_one_more(lists: Ragged, values: Rows) -> Ragged:
    """Return the lists with one value more each, at its end."""
    count = len(values)
    owners = np.repeat(np.arange(count), np.diff(lists.bounds))
    owners = np.concatenate([owners, np.arange(count)])
    order = np.argsort(owners, kind="stable")
    return Ragged.of(owners[order], np.concatenate([lists.values, values])[order], count)


def _selected(lists: Ragged, kept: NDArray[np.bool_]) -> Ragged:
    sizes = np.diff(lists.bounds)
    owners = np.repeat(np.arange(int(kept.sum())), sizes[kept])
    return Ragged.of(owners, lists.values[np.repeat(kept, sizes)], int(kept.sum()))


def _tell(count: int, why: str) -> None:
    if count:
        log.info(f"{count:,} queries are skipped: {why}")
