"""Measures of rankings: ranx behind one adapter that fixes what trec_eval fixes.

- The ranking is the run's own, by its tie rule: ranx gets document numbers, no scores to sort.
- Every query with a judgement counts, and one that the run lacks counts 0 (trec_eval -c).
- A query whose judgements are all below the relevance level counts 0, as in trec_eval.
- A grade below 0 means not judged (trec_eval: seen outside of the pool); it gains nothing.
- nDCG's gain is the grade itself, as in trec_eval's ndcg_cut; `gain=exp` makes it 2^grade - 1.
  All other measures ask whether a grade reaches the level `rel`.

`retrodistill.data.rankings.measures` says of each measure what it is, and where it comes from.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.logging import log
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.measures import MEASURES, Metric, parse_metric, parse_metrics
from retrodistill.data.store.runs import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Metric", "PerQuery", "evaluate", "parse_metric", "parse_metrics"]

PerQuery = dict[str, dict[str, float]]
"""Metric as it was typed -> query id -> value."""


def evaluate(
    qrels: Qrels, run: Run, metrics: Sequence[Metric], *, judged_only: bool = False
) -> PerQuery:
    """Return each metric's value for every query that has a judgement, 0 where the run lacks it.

    Queries of the run without a judgement are ignored. With `judged_only`, documents without a
    judgement are taken out of each list before it is measured ("condensed lists", Sakai 2007,
    "Alternatives to bpref"); only `judged` still sees them.
    """
    query_ids = [query for query, judged in qrels.items() if judged]
    if not query_ids:
        return {str(metric): {} for metric in metrics}
    whole = _Lists.of(qrels, run, query_ids)
    lists = whole.condensed() if judged_only else whole
    values = {}
    for metric in metrics:
        row = whole.judged(metric.cutoff) if metric.name == "judged" else _measured(metric, lists)
        values[str(metric)] = dict(zip(query_ids, row.tolist(), strict=True))
    return values


@dataclass(frozen=True, eq=False)
class _Lists:
    """The judgements and the ranking of each query, with numbers for documents.

    A query's judged documents are numbered from the highest grade down.
    """

    grades: "Floats"
    judged_sizes: "NDArray[np.int64]"
    """Judged documents of each query, whose `grades` follow each other."""

    ranked: "Floats"
    ranked_sizes: "NDArray[np.int64]"
    """Listed documents of each query, whose numbers follow each other, best first; -1: not judged.
    """

    @classmethod
    def of(cls, qrels: Qrels, run: Run, query_ids: Sequence[str]) -> "_Lists":
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = [qrels[query] for query in query_ids]
        docs = pa.array(list(chain.from_iterable(rows)), pa.string()).dictionary_encode()
        grades = np.fromiter(
            chain.from_iterable(grades_of_query.values() for grades_of_query in rows), np.float64
        )
        owners = np.repeat(np.arange(len(rows)), [len(grades_of_query) for grades_of_query in rows])
        order = np.lexsort((-grades, owners))
        order = order[grades[order] >= 0]
        judged_sizes = np.bincount(owners[order], minlength=len(rows))
        judged = docs.indices.to_numpy()[order]
        judged_codes = pc.index_in(run.table["doc_id"], value_set=docs.dictionary)
        listed = judged_codes.fill_null(len(docs.dictionary)).to_numpy()
        span_of = dict(zip(run.query_ids, _spans(run.list_sizes), strict=True))
        spans = [span_of.get(query, (0, 0)) for query in query_ids]
        numbers = np.full(len(docs.dictionary) + 1, -1.0)  # the last: judged for no query
        ranked = [np.empty(0)]
        for (start, size), (judged_start, count) in zip(spans, _spans(judged_sizes), strict=True):
            grades_of_query = judged[judged_start : judged_start + count]
            numbers[grades_of_query] = np.arange(count)
            ranked.append(numbers[listed[start : start + size]])
            numbers[grades_of_query] = -1.0
        sizes = np.array([size for _, size in spans])
        return cls(grades[order], judged_sizes, np.concatenate(ranked), sizes)

    def condensed(self) -> "_Lists":
        """Return the same without the listed documents that are not judged."""
        is_judged = self.ranked >= 0
        sizes = np.bincount(self._owners()[is_judged], minlength=len(self.ranked_sizes))
        return replace(self, ranked=self.ranked[is_judged], ranked_sizes=sizes)

    def judged(self, cutoff: int | None) -> "Floats":
        """Return the share of each query's first `cutoff` documents that is judged."""
        owners = self._owners()
        ranks = np.arange(len(owners)) - _starts(self.ranked_sizes)[owners]
        counts = (self.ranked >= 0) & (ranks < (cutoff or np.inf))
        judged_counts = np.bincount(owners[counts], minlength=len(self.ranked_sizes))
        return judged_counts / np.clip(self.ranked_sizes, 1, cutoff)

    @cached_property
    def judgements(self) -> "Sequence[Floats]":
        """Ranx's judgements: a (document number, grade) row for each document of a query."""
        return self._judgements(self.grades)

    @cached_property
    def rankings(self) -> "Sequence[Floats]":
        """Ranx's rankings: a (document number,) row for each document of a query, best first."""
        return _typed(self._rankings())

    def binary_judgements(self, rel: int) -> "Sequence[Floats]":
        """Return judgements with gain 1 from the grade `rel` on: ranx's RBP weighs by the gain."""
        return self._judgements(self.grades >= rel)

    def two_sided_judgements(self, rel: int) -> "Sequence[Floats]":
        """Return judgements with one document of either kind at least, as ranx's bpref needs.

        A kind that a query lacks gets a document that no run lists. Without that, ranx divides by
        zero, where trec_eval has 0 (nothing relevant), and 1 for each document (all relevant).
        """
        lists = []
        for rows in np.split(self._rows(self.grades), _starts(self.judged_sizes)[1:]):
            relevant = rows[:, 1] >= rel
            spare = [
                grade
                for grade, present in ((rel, relevant), (rel - 1, ~relevant))
                if not present.any()
            ]
            added = [(len(rows) + offset, grade) for offset, grade in enumerate(spare)]
            lists.append(np.concatenate([rows, np.reshape(np.array(added, float), (-1, 2))]))
        return _typed(lists)

    def cut_rankings(self, cutoff: int | None) -> "Sequence[Floats]":
        """Return rankings without what follows a cutoff."""
        return (
            _typed([ranking[:cutoff] for ranking in self._rankings()]) if cutoff else self.rankings
        )

    def _judgements(self, gains: "NDArray[Any]") -> "Sequence[Floats]":
        return _typed(np.split(self._rows(gains), _starts(self.judged_sizes)[1:]))

    def _rows(self, gains: "NDArray[Any]") -> "Floats":
        numbers = np.arange(len(gains)) - np.repeat(_starts(self.judged_sizes), self.judged_sizes)
        return np.column_stack((numbers, gains)).astype(np.float64)

    def _rankings(self) -> "list[Floats]":
        return np.split(self.ranked.reshape(-1, 1), _starts(self.ranked_sizes)[1:])

    def _owners(self) -> "NDArray[np.int64]":
        return np.repeat(np.arange(len(self.ranked_sizes)), self.ranked_sizes)


def _starts(sizes: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Return where each query's rows start."""
    return np.cumsum(sizes) - sizes


def _spans(sizes: "NDArray[np.int64]") -> list[tuple[int, int]]:
    """Return each query's first row, and how many it has."""
    return list(zip(_starts(sizes).tolist(), sizes.tolist(), strict=True))


def _typed(arrays: "Sequence[Floats]") -> "Sequence[Floats]":
    """Return arrays as numba's list, which compiled code takes without a copy."""
    from numba.typed import List

    typed: Sequence[Floats] = List(arrays)
    return typed


def _measured(metric: Metric, lists: _Lists) -> "Floats":
    """Return a metric's value for each query, by ranx."""
    from numba.core.errors import NumbaTypeSafetyWarning

    function = _ranx_function(metric.name)
    with warnings.catch_warnings():
        # ranx counts with uint64 what it indexes with int64: numba says so while it compiles.
        warnings.simplefilter("ignore", NumbaTypeSafetyWarning)
        if metric.name == "rbp":
            judgements = lists.binary_judgements(metric.rel)
            row = function(judgements, lists.cut_rankings(metric.cutoff), metric.p, 1)
        elif metric.name == "bpref":
            row = function(lists.two_sided_judgements(metric.rel), lists.rankings, 0, metric.rel)
        else:
            row = function(lists.judgements, lists.rankings, metric.cutoff or 0, metric.rel)
    return np.asarray(row, np.float64)


def _ranx_function(name: str) -> Any:
    """Return a measure's function of ranx; say so if its first call has to compile it."""
    import ranx.metrics

    measure = MEASURES[name]
    function = getattr(ranx.metrics, measure.function)
    kernel = function.__globals__[f"_{measure.kernel or measure.function}_parallel"]
    compiled = Path(kernel.stats.cache_path).glob(f"*.{kernel.py_func.__name__}-*.nbc")
    if not kernel.signatures and not any(compiled):
        log.info(f"compiling ranx's {measure.function}: once in an environment, some seconds.")
    return function
