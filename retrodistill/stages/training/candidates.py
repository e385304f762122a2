"""Gathers the candidates of every query that is trained on, from labels and teacher scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Positives
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.stages.training.candidate_lists import CandidateLists, Ragged
from retrodistill.stages.training.pseudo_labels import pseudo_labelled
from retrodistill.stages.training.sampling import Rows

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts
    from retrodistill.data.store.runs import Run

Labels = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateFilters:
    """What teacher scores rule out.

    Raises:
        ConfigError: a filter is out of range.

    Source: both as in Tamber et al. 2025, "Teaching Dense Retrieval Models to Specialize with
    Listwise Distillation and LLM Data Augmentation" (0.25; 0.6 of the best, on min-max'd scores);
    0.95 of the positive in Moreira et al. 2024, arXiv:2407.15831 (NV-Retriever).

    """

    drop_weak_queries: float = 0.0
    """Share of the queries to skip, those whose best teacher score is lowest: perhaps nothing
    answers them."""

    false_negatives: float | None = None
    """Share of the query's best positive score above which a candidate is `doubtful`. It is no
    negative of that query then, wherever in a batch it comes from, but the teacher's score of it
    still teaches. A share needs scores that start at 0, so logits are refused."""

    label_above: float | None = None
    """Probability above which a candidate becomes relevant (`pseudo_labelled`)."""

    label_below: float | None = None
    """Probability below which one is a negative; those between are dropped."""

    def __post_init__(self) -> None:
        weak, ratio = self.drop_weak_queries, self.false_negatives
        if not 0 <= weak < 1:
            raise ConfigError(f"drop_weak_queries must be from 0 to below 1, but it is {weak}.")
        if ratio is not None and not ratio > 0:
            raise ConfigError(f"false_negatives must be above 0, but it is {ratio}.")

    def check(self, scores: "Run | None") -> None:
        """Check that the scores are such that the filters can use them.

        Raises:
            ConfigError: they are not.

        """
        ratio = self.false_negatives
        if scores is None and self != NO_FILTERS:
            raise ConfigError(
                "drop_weak_queries, false_negatives and label_above need teacher scores: --scores."
            )
        if scores is not None and ratio is not None:
            lowest = float(scores.table["score"].to_numpy().min(initial=0.0))
            if lowest < 0:
                raise ConfigError(
                    f"false_negatives is a share of the positive's score, so scores must start at "
                    f"0, but the lowest is {lowest:.4g}. Bring them from 0 to 1 before: "
                    "`retrodistill fuse --run STORE --norm percentiles --as-store`."
                )


NO_FILTERS = CandidateFilters()


def gather(
    collection: "Collection",
    split: str,
    scores: "Run | None",
    *,
    pool: int,
    positives: Positives = "labels",
    unlabelled_splits: Sequence[str] = (),
    dev_split: str | None = None,
    filters: CandidateFilters = NO_FILTERS,
) -> CandidateLists:
    """Return the candidates of each query to train on.

    Without scores, these are the labelled queries of the split, and the documents that it judges
    not relevant (grade 0) are their negatives. With scores, they are the scored
    queries: those of the split, those that no split judges, and those of `unlabelled_splits`,
    whose labels are not used. Queries of `dev_split` are never among them. How many queries are
    skipped, and why, is logged.

    `positives` selects a query's positives. `labels`: those that the split
    labels; of an unlabelled query the teacher's best takes their place, without a label.
    `labels-or-teacher`: the same, but with a label. `teacher`: the teacher's best of every query,
    which then counts as labelled (source: Tamber et al. 2025, as for the filters).

    Raises:
        ConfigError: a filter or `positives` does not fit the scores.
        DataError: no query remains.

    """
    filters.check(scores)
    if scores is None and positives != "labels":
        raise ConfigError(f"--positives {positives} needs teacher scores: give --scores.")
    relevant: Labels = collection.relevant(split) if split in collection.splits else {}
    measured = judged_elsewhere(collection, split, unlabelled_splits, dev_split=dev_split)
    if scores is None:
        skipped = _skipped(relevant, measured)
        relevant = {query: docs for query, docs in relevant.items() if query not in skipped}
        irrelevant = collection.irrelevant(split) if relevant else {}
        lists = _from_labels(collection, relevant, irrelevant)
    else:
        skipped = _skipped(scores.query_ids, measured)
        if skipped:
            scores = scores.select(query for query in scores.query_ids if query not in skipped)
        if filters.label_above is not None:
            relevant, scores = pseudo_labelled(
                relevant, scores, above=filters.label_above, below=filters.label_below
            )
        lists = _from_scores(
            collection, relevant, scores, pool=pool, positives=positives, filters=filters
        )
    if not len(lists):
        raise DataError(
            f"no query of split {split!r} can be trained on: there must be relevant documents, "
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
    """Return, by split, the queries that are for measuring rather than for training.

    Those are the queries of `dev_split`, and those of splits that are neither `split` nor among
    `unlabelled_splits`; and queries of the same text under another id, as a query log has them,
    be it the student's text or one in another view that is read. What `split` judges too is
    trained on, unless `dev_split` names it.

    Raises:
        ConfigError: an unlabelled split does not exist.

    """
    for name in unlabelled_splits:
        collection.qrels(name)  # raises if the split does not exist
    trained = set(collection.qrels(split)) if split in collection.splits else set()
    measured = {
        name: set(collection.qrels(name)) - trained
        for name in collection.splits
        if name not in {split, dev_split, *unlabelled_splits}
    }
    if dev_split is not None:
        measured = {dev_split: set(collection.qrels(dev_split)), **measured}
    if any(measured.values()):
        for view in collection.views_read:
            _add_equal_texts(view.queries, measured, trained)
    return measured


def _add_equal_texts(queries: "Texts", measured: Mapping[str, set[str]], trained: set[str]) -> None:
    """Add to each set the queries of equal text, ignoring case and spaces."""
    texts = {query.id: " ".join(query.full_text.casefold().split()) for query in queries}
    owners: dict[str, str] = {}
    for split, judged in measured.items():
        owners |= dict.fromkeys((texts[query] for query in judged if query in texts), split)
    for query, text in texts.items():
        if text in owners and query not in trained:
            measured[owners[text]].add(query)


def _skipped(queries: Iterable[str], measured: Mapping[str, set[str]]) -> set[str]:
    """Return which of the queries other splits measure with; log how many of each."""
    remaining, skipped = set(queries), set()
    for split, judged in measured.items():
        judged_here = remaining & judged
        _log_skipped(
            len(judged_here),
            f"split {split!r} judges them, or queries of the same text. To train on them without "
            f"its labels, pass --unlabelled-split {split}.",
        )
        remaining -= judged_here
        skipped |= judged_here
    return skipped


def _from_labels(collection: "Collection", relevant: Labels, irrelevant: Labels) -> CandidateLists:
    queries = [query for query, docs in relevant.items() if docs]
    docs = _label_lists(collection, relevant, queries)
    negatives = _label_lists(collection, irrelevant, queries)
    if len(negatives.values):
        owners = np.count_nonzero(np.diff(negatives.bounds))
        log.info(
            f"{len(negatives.values):,} documents that are judged not relevant (grade 0) are "
            f"negatives of {owners:,} of {len(queries):,} queries."
        )
    nothing = Ragged(np.zeros(0, np.int64), np.zeros(len(queries) + 1, np.int64))
    return CandidateLists(
        queries=collection.queries.rows(queries),
        positives=docs,
        pool=negatives,
        positive_scores=Ragged(np.zeros(len(docs.values), np.float32), docs.bounds),
        pool_scores=Ragged(np.zeros(len(negatives.values), np.float32), negatives.bounds),
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
    *,
    pool: int,
    positives: Positives,
    filters: CandidateFilters,
) -> CandidateLists:
    pairs = _scored_pairs(collection, scores)
    labels = _label_lists(collection, relevant, scores.query_ids)

    # Which pairs are positives.
    unlabelled = np.diff(labels.bounds) == 0
    if positives == "teacher":
        positive = np.zeros(len(pairs.docs), np.bool_)
        positive[pairs.starts] = True
        labels = _with_one_more(labels, pairs.docs[pairs.starts], np.ones_like(unlabelled))
    else:
        positive = _are_labelled(pairs.owners, pairs.docs, labels, len(collection.docs))
        positive[pairs.starts[unlabelled]] = True
        if positives == "labels-or-teacher":
            labels = _with_one_more(labels, pairs.docs[pairs.starts], unlabelled)

    # Which queries stay, and their pairs.
    usable = _usable(pairs, positive, filters.drop_weak_queries)
    owners, docs, values = pairs.owners, pairs.docs, pairs.scores
    if not usable.all():
        kept = usable[owners]
        owners = (np.cumsum(usable) - 1)[owners[kept]]
        docs, values, positive = docs[kept], values[kept], positive[kept]
    count = int(usable.sum())

    # Lists of positives, of the best others, and of those that may be relevant.
    positive_docs = Ragged.of(owners[positive], docs[positive], count)
    positive_scores = Ragged(values[positive], positive_docs.bounds)
    doubtful = _doubtful(owners, values, positive, positive_scores, filters.false_negatives)
    negatives = np.flatnonzero(~positive)
    sizes = np.bincount(owners[negatives], minlength=count)
    ranks = np.arange(len(negatives))
    ranks -= np.repeat(np.cumsum(sizes) - sizes, sizes)
    best = negatives[ranks < pool]
    del negatives, ranks  # eight bytes a pair each
    pools = Ragged.of(owners[best], docs[best], count)
    return CandidateLists(
        queries=collection.queries.rows(scores.query_ids)[usable],
        positives=positive_docs,
        pool=pools,
        positive_scores=positive_scores,
        pool_scores=Ragged(values[best], pools.bounds),
        relevant=labels.select(usable),
        doubtful=Ragged.of(owners[doubtful], docs[doubtful], count),
        scored=True,
    )


@dataclass(frozen=True, eq=False, slots=True)
class _ScoredPairs:
    """The pairs of a run, list after list, best score first."""

    owners: Rows
    """Number of each pair's query."""
    docs: Rows
    """Row of each pair's document."""
    scores: NDArray[np.float32]
    starts: Rows
    """The first pair of each query."""


def _scored_pairs(collection: "Collection", scores: "Run") -> _ScoredPairs:
    from retrodistill.data.rankings.segments import numbered

    sizes = scores.list_sizes
    doc_ids, (codes,) = numbered([scores], "doc_id")
    return _ScoredPairs(
        owners=np.repeat(np.arange(len(sizes)), sizes),
        docs=collection.docs.rows(doc_ids.to_pylist())[codes],
        scores=scores.table["score"].to_numpy(),
        starts=np.cumsum(sizes) - sizes,
    )


def _usable(pairs: _ScoredPairs, positive: NDArray[np.bool_], weak: float) -> NDArray[np.bool_]:
    """Tell which queries have a positive and another candidate, and are not among the weakest."""
    count = len(pairs.starts)
    sizes = np.bincount(pairs.owners, minlength=count)
    hits = np.bincount(pairs.owners[positive], minlength=count)
    usable: NDArray[np.bool_] = (hits > 0) & (hits < sizes)
    _log_skipped(
        int((hits == 0).sum()),
        "none of their relevant documents was scored. Mine with --add-positives to keep them.",
    )
    _log_skipped(int((hits == sizes).sum()), "they have no candidate beside a positive.")
    if weak and usable.any():
        best = pairs.scores[pairs.starts]
        limit = float(np.quantile(best[usable], weak))
        dropped = usable & (best < limit)
        _log_skipped(int(dropped.sum()), f"their best teacher score is below {limit:.4g}.")
        usable &= ~dropped
    return usable


def _doubtful(
    owners: Rows,
    scores: NDArray[np.float32],
    positive: NDArray[np.bool_],
    positive_scores: Ragged,
    ratio: float | None,
) -> NDArray[np.bool_]:
    """Tell which candidates score above a share of their query's best positive."""
    if ratio is None:
        return np.zeros(len(scores), np.bool_)
    best = positive_scores.values[positive_scores.bounds[:-1]]
    doubtful: NDArray[np.bool_] = ~positive & (scores > ratio * best[owners])
    log.info(
        f"{int(doubtful.sum()):,} candidates of {len(np.unique(owners[doubtful])):,} queries "
        f"score above {ratio:g} of the best positive: no negatives."
    )
    return doubtful


def _are_labelled(owners: Rows, docs: Rows, labels: Ragged, width: int) -> NDArray[np.bool_]:
    """Tell which of the (owner, document) pairs are among the labels."""
    label_owners = np.repeat(np.arange(len(labels.bounds) - 1), np.diff(labels.bounds))
    keys = np.sort(label_owners * width + labels.values)
    if not len(keys):
        return np.zeros(len(docs), np.bool_)
    pair_keys = owners * width + docs
    nearest = np.searchsorted(keys, pair_keys).clip(max=len(keys) - 1)
    labelled: NDArray[np.bool_] = keys[nearest] == pair_keys
    return labelled


def _with_one_more(lists: Ragged, values: Rows, chosen: NDArray[np.bool_]) -> Ragged:
    """Return the lists, those that are chosen with one value more each, at its end."""
    count = len(values)
    owners = np.repeat(np.arange(count), np.diff(lists.bounds))
    owners = np.concatenate([owners, np.flatnonzero(chosen)])
    order = np.argsort(owners, kind="stable")
    return Ragged.of(owners[order], np.concatenate([lists.values, values[chosen]])[order], count)


def _log_skipped(count: int, why: str) -> None:
    if count:
        log.info(f"{count:,} queries are skipped: {why}")
