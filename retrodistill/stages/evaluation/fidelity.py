"""Does a student follow its teacher? Two runs of the same queries, list beside list."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError, did_you_mean
from retrodistill.data.rankings.correlation import (
    Rankings,
    kendall_tau,
    pearson,
    pooled_margins,
    rank_biased_overlap,
    spearman,
)
from retrodistill.data.rankings.segments import Floats, Numbers, Segments, numbered, scores_of
from retrodistill.data.store.runs import Run

MEASURES = ("tau", "spearman", "margin", "rbo", "overlap", "same_best", "kl")
TITLES = {
    "tau": "tau-b",
    "spearman": "Spearman",
    "margin": "margins",
    "rbo": "RBO",
    "overlap": "overlap@{k}",
    "same_best": "same best",
    "kl": "KL",
}
SINGLE, CONSTANT = "fewer than 2 shared documents", "constant teacher"


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How closely a student's run follows its teacher's."""

    per_query: Mapping[str, Mapping[str, float]]
    """Measure -> query id -> value."""

    pooled_margin: float | None
    """Pearson's correlation of score differences, those of all queries in one pool."""

    shared: Mapping[str, int]
    """Query id -> documents that both scored, for each query that both have."""

    coverage: float
    """Share of the teacher's documents, of these queries, that the student scored too."""

    skipped: Mapping[str, Sequence[str]]
    """Why a query could not be compared -> ids of such queries."""

    settings: Mapping[str, float] = field(default_factory=dict)
    """k, p and the temperatures."""

    @property
    def means(self) -> dict[str, float | None]:
        """Measure -> mean over the queries that it is defined for; None where there is none."""
        return {
            name: sum(values.values()) / len(values) if values else None
            for name, values in self.per_query.items()
        }

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """Return it as plain values, the single queries' only if asked for."""
        plain: dict[str, Any] = {
            "measures": self.means,
            "queries": {name: len(values) for name, values in self.per_query.items()},
            "pooled_margin": self.pooled_margin,
            "shared": sum(self.shared.values()),
            "coverage": self.coverage,
            "skipped": {why: list(queries) for why, queries in self.skipped.items()},
            "settings": dict(self.settings),
        }
        if per_query:
            values = {name: dict(query_values) for name, query_values in self.per_query.items()}
            plain |= {"per_query": values, "shared_per_query": dict(self.shared)}
        return plain


def fidelity(
    student: Run,
    teacher: Run,
    *,
    measures: Sequence[str] = MEASURES,
    k: int = 10,
    p: float = 0.9,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Fidelity:
    """Return how a student's run follows its teacher's, query by query.

    Of the documents that both runs scored, the others ignored on both sides (a document that a
    teacher never saw is not one that it ranks low):

    - `tau`: Kendall's tau-b. `spearman`: correlation of the ranks, tied ones at their mean.
    - `margin`: Pearson's correlation of the score differences between all pairs of documents,
      which is that of the scores. `pooled_margin` takes the pairs of all queries together, and is
      lower where the student's margins have another scale in each query.
    - `same_best`: 1 if both rank the same one first, else 0.
    - `kl`: KL(softmax(teacher / T_t) || softmax(student / T_s)), in nats.

    Of the lists as they are, and of every query that both have:

    - `rbo`: extrapolated rank-biased overlap of persistence `p`; 0.9 gives the first ten ranks
      86 % of the weight. Ties share a rank; everywhere else they fall by id, as in all runs.
    - `overlap`: documents among the best `k` of both, over `k`, or over the length of the longer
      list where that is less than `k`.

    Perfect is 0 for `kl` and 1 for all others. A single shared document has no order, nor have
    those that the teacher gives one score: such queries are skipped, and named. A student that
    gives all one score follows nothing: its correlations are 0, and the query counts.

    Raises:
        ConfigError: a measure is unknown, or a setting is out of range.
        DataError: no query is in both runs.

    """
    _check(measures, k, p, student_temperature, teacher_temperature)
    both = _Both.of(student, teacher)
    lists, a, b = both.compared()
    values: dict[str, Callable[[], Floats]] = {
        "tau": partial(kendall_tau, lists, a, b),
        "spearman": partial(spearman, lists, a, b),
        "margin": partial(pearson, lists, a, b),
        "same_best": both.same_best,
        "kl": partial(_kl, lists, a / student_temperature, b / teacher_temperature),
        "rbo": partial(rank_biased_overlap, both.student, both.teacher, both.rows, p=p),
        "overlap": partial(both.overlap, k),
    }
    comparable = _chosen(both.queries, both.comparable)
    per_query = {}
    for name in dict.fromkeys(measures):
        queries = both.queries if name in ("rbo", "overlap") else comparable
        per_query[name] = dict(zip(queries, values[name]().tolist(), strict=True))
    skipped = {
        "not in the student's run": sorted(set(teacher.query_ids).difference(both.queries)),
        "not in the teacher's run": sorted(set(student.query_ids).difference(both.queries)),
        SINGLE: _chosen(both.queries, both.counts < 2),
        CONSTANT: _chosen(both.queries, (both.counts > 1) & ~both.comparable),
    }
    return Fidelity(
        per_query,
        pooled_margins(lists, a, b),
        shared=dict(zip(both.queries, both.counts.tolist(), strict=True)),
        coverage=float(both.counts.sum() / both.teacher.lists.lengths.sum()),
        skipped={why: queries for why, queries in skipped.items() if queries},
        settings={
            "k": k,
            "p": p,
            "student_temperature": student_temperature,
            "teacher_temperature": teacher_temperature,
        },
    )


def fidelity_table(
    found: Mapping[str, Fidelity],
) -> tuple[list[str], list[list[str | None]]]:
    """Return the columns, and the row of each system, of a table of means."""
    sample = next(iter(found.values()))
    names = list(sample.per_query)
    columns = ["system", *(TITLES[name].format(**sample.settings) for name in names)]
    columns += ["pooled margins", "compared", "shared"]
    rows = []
    for system, result in found.items():
        compared = len(result.shared) - sum(
            len(result.skipped.get(why, ())) for why in (SINGLE, CONSTANT)
        )
        means = [*(result.means[name] for name in names), result.pooled_margin]
        cells = [None if mean is None else f"{mean:.4f}" for mean in means]
        rows.append([system, *cells, f"{compared:,}", f"{result.coverage:.1%}"])
    return columns, rows


@dataclass(frozen=True, eq=False, slots=True)
class _Both:
    """Two runs' lists of the queries that both have, in one order."""

    queries: list[str]
    student: Rankings
    teacher: Rankings

    owners: Numbers
    """Query, as a number, of each document that both scored; sorted."""

    rows: tuple[Numbers, Numbers]
    """Row of such a document in the student's lists, and in the teacher's."""

    counts: Numbers
    """Such documents of each query."""

    comparable: NDArray[np.bool_]
    """Which queries have at least two of them that the teacher tells apart."""

    @classmethod
    def of(cls, student: Run, teacher: Run) -> "_Both":
        query_ids, owners = numbered((student, teacher), "query_id")
        doc_ids, docs = numbered((student, teacher), "doc_id")
        known = np.intersect1d(owners[0], owners[1])
        if not len(known):
            raise DataError(
                "the student's run and the teacher's share no query: they have ids like "
                f"{student.query_ids[:3]} and {teacher.query_ids[:3]}. Give runs of one split."
            )
        ours, our_pairs = _ranked(student, owners[0], docs[0], known, len(doc_ids))
        theirs, their_pairs = _ranked(teacher, owners[1], docs[1], known, len(doc_ids))
        shared, our_rows, their_rows = np.intersect1d(
            our_pairs, their_pairs, assume_unique=True, return_indices=True
        )
        query = shared // len(doc_ids)
        lists, scores = Segments.of(query), theirs.scores[their_rows]
        comparable = np.zeros(len(known), bool)
        comparable[query[lists.starts]] = lists.highest(scores) > -lists.highest(-scores)
        return cls(
            query_ids.take(known).to_pylist(),
            ours,
            theirs,
            query,
            (our_rows, their_rows),
            np.bincount(query, minlength=len(known)),
            comparable,
        )

    def compared(self) -> tuple[Segments, Floats, Floats]:
        """Return the shared documents of comparable queries, and both runs' scores of them."""
        chosen = self.comparable[self.owners]
        student, teacher = (rows[chosen] for rows in self.rows)
        scores = self.student.scores[student], self.teacher.scores[teacher]
        return Segments.of(self.owners[chosen]), *scores

    def same_best(self) -> Floats:
        """Return 1 for each comparable query where both rank the same shared document first."""
        chosen = self.comparable[self.owners]
        lists = Segments.of(self.owners[chosen])
        is_best = [
            rows[chosen] == lists.spread(-lists.highest(-rows[chosen])) for rows in self.rows
        ]
        return lists.sums(is_best[0] & is_best[1])

    def overlap(self, k: int) -> Floats:
        """Return the share of each query's best `k` that both have."""
        sides = self.student.lists, self.teacher.lists
        among = [lists.ranks()[rows] <= k for lists, rows in zip(sides, self.rows, strict=True)]
        common = np.bincount(self.owners[among[0] & among[1]], minlength=len(self.queries))
        longer = np.maximum(sides[0].lengths, sides[1].lengths)
        return common / np.minimum(longer, k)


def _ranked(
    run: Run, owners: Numbers, docs: Numbers, known: Numbers, all_docs: int
) -> tuple[Rankings, Numbers]:
    """Return the lists of the known queries, in their order, and a number for each pair there."""
    chosen = np.flatnonzero(np.isin(owners, known))
    chosen = chosen[np.argsort(owners[chosen], kind="stable")]
    queries: Numbers = np.searchsorted(known, owners[chosen])
    rankings = Rankings(Segments.of(queries), scores_of(run)[chosen])
    return rankings, queries * all_docs + docs[chosen]


def _kl(lists: Segments, student: Floats, teacher: Floats) -> Floats:
    """Return KL(softmax(teacher) || softmax(student)) of each list, in nats."""
    logs = []
    for logits in (student, teacher):
        logits = logits - lists.spread(lists.highest(logits))
        logs.append(logits - lists.spread(np.log(lists.sums(np.exp(logits)))))
    return np.maximum(lists.sums(np.exp(logs[1]) * (logs[1] - logs[0])), 0)


def _chosen(queries: Sequence[str], wanted: NDArray[np.bool_]) -> list[str]:
    return [query for query, chosen in zip(queries, wanted, strict=True) if chosen]


def _check(
    measures: Sequence[str],
    k: int,
    p: float,
    student_temperature: float,
    teacher_temperature: float,
) -> None:
    """Raise ConfigError for an unknown measure or an invalid setting."""
    for name in measures:
        if name not in MEASURES:
            hint = did_you_mean(name, MEASURES)
            raise ConfigError(f"unknown measure {name!r}.{hint} Known: {', '.join(MEASURES)}.")
    if k < 1:
        raise ConfigError(f"k must be at least 1, but it is {k}.")
    if not 0 < p < 1:
        raise ConfigError(f"p of rank-biased overlap must lie between 0 and 1, but it is {p}.")
    for temperature in (student_temperature, teacher_temperature):
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ConfigError(f"a temperature must be above 0 and finite, but it is {temperature}.")
