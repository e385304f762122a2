"""Weights of a fusion, found on judged queries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, pairwise, permutations
from math import comb
from typing import Any, TypeAlias

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.aligning import align
from retrodistill.data.rankings.fusing import (
    MINIMA,
    NORM,
    Method,
    Norm,
    check_method,
    comparable,
    fuse_runs,
    fused,
)
from retrodistill.data.rankings.lists import Floats, Lists, Numbers
from retrodistill.data.rankings.metrics import evaluate, parse_metric
from retrodistill.data.rankings.tabular import Measured, tabular
from retrodistill.data.store.runs import Run

POINTS = 100
"""Most weight vectors of the first grid."""

STEPS = (20, 10, 5, 4, 3, 2, 1)
"""Into how many steps the first grid may cut a weight; finer than the first is not searched."""

ENOUGH = 100
"""Judged queries from which on a tuning is measured by two-fold cross-validation."""

Weights: TypeAlias = tuple[float, ...]
Setting: TypeAlias = tuple[Norm | None, Weights]
"""Norm (None: ranks) and weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """What was found on the judged queries; every value is a mean over all of them."""

    method: Method
    norm: Norm | None
    """None: ranks."""

    weights: Weights
    """Of each run, adding up to 1."""

    k: float
    minima: Weights | None
    metric: str
    queries: int
    """Judged queries that at least one run holds."""

    singles: Weights
    """Each run alone."""

    rrf: float
    """Reciprocal ranks with equal weights."""

    equal: float
    """The method with equal weights; by min-max, unless a norm was asked for."""

    fitted: float
    """The method with these weights, on the queries that they were chosen for: too high."""

    held_out: float | None
    """The same, each half of the queries with what the other half chooses (None: too few)."""

    def fuse(self, runs: Sequence[Run]) -> Run:
        """Return other queries' runs of the same systems, in the same order, as one run."""
        return fuse_runs(
            runs, self.method, weights=self.weights, norm=self.norm, minima=self.minima, k=self.k
        )

    def rows(self, names: Sequence[str]) -> list[tuple[str, float]]:
        """Return what was measured, and of what; names are the runs'."""
        weights = ", ".join(f"{weight:.3g}" for weight in self.weights)
        tuned = f"{self.method} of {self.norm or 'ranks'}, weights {weights}"
        rows = [*zip(names, self.singles, strict=True), ("rrf, equal weights", self.rrf)]
        if self.method != "rrf":
            rows.append((f"{self.method}, equal weights", self.equal))
        rows.append((f"{tuned} (too high: measured where it was tuned)", self.fitted))
        if self.held_out is not None:
            rows.append(("the same, tuned on one half, measured on the other", self.held_out))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def tune_fusion(
    runs: Sequence[Run],
    qrels: Qrels,
    *,
    method: Method = "sum",
    norm: Norm | None = None,
    minima: Sequence[float] | None = None,
    metric: str = "ndcg@10",
    k: float = 60.0,
    seed: int = 0,
) -> Tuning:
    """Return the weights, and unless given the norm, with which `fuse_runs` does best on `qrels`.

    First all weights of a grid on the simplex are tried, with every norm, then steps of half the
    size from the best one, in which one run gives to another (coordinate search), down to 1/20. Of
    equally good weights the ones nearer to equal are taken.

    The weights are chosen for these very queries, so `fitted` is too high. From 100 queries on,
    `held_out` is measured by two-fold cross-validation, with halves drawn by `seed`.

    Raises:
        ConfigError: fewer than two runs, or a method without weights.
        DataError: the runs hold none of the judged queries.

    Source: Bruch et al. 2023, arXiv:2210.11934, who tune a convex combination on a few queries.

    """
    check_method(method, norm)
    if method == "rerank" or len(runs) < 2:
        raise ConfigError(
            f"tuning needs a method with weights and two runs or more, but got {method} and "
            f"{len(runs)} runs."
        )
    given = set().union(*(run.query_ids for run in runs))
    judged = {query: docs for query, docs in qrels.items() if docs and query in given}
    if not judged:
        raise DataError(
            f"the runs to tune on hold none of the judged queries: they have ids like "
            f"{sorted(given)[:3]}, the judgements {list(qrels)[:3]}. Check the split."
        )
    runs = [run.select(judged) for run in runs]
    norms = _norms(runs, method, norm, minima)
    settings: dict[str, Any] = {"method": method, "minima": minima, "k": k}
    board = _Board.of(runs, judged, norms, metric=metric, **settings)
    everything = np.arange(len(judged))
    chosen, weights = _best(board, everything)
    held_out = None
    if len(judged) >= ENOUGH:
        halves = np.array_split(np.random.default_rng(seed).permutation(everything), 2)
        values = np.zeros(len(judged))
        for half, other in (halves, halves[::-1]):
            values[other] = board.measure(_best(board, half))[other]
        held_out = float(values.mean())

    def mean(run: Run) -> float:
        (row,) = evaluate(judged, run, [parse_metric(metric)]).values()
        return float(np.mean(list(row.values())))

    return Tuning(
        method=method,
        norm=chosen,
        weights=weights,
        k=k,
        minima=None if minima is None else tuple(minima),
        metric=metric,
        queries=len(judged),
        singles=tuple(map(mean, runs)),
        rrf=mean(fuse_runs(runs, "rrf", k=k)),
        equal=mean(fuse_runs(runs, norm=norm, **settings)),
        fitted=mean(fuse_runs(runs, weights=weights, norm=chosen, **settings)),
        held_out=held_out,
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Board:
    """The judged queries' pairs, laid out so that weights are measured without a Run.

    Queries are rows of tables, padded to the longest; their documents stand in descending order of
    ids, which with a stable sort is the tie rule of runs.
    """

    values: Mapping[Norm | None, Floats]
    """Norm -> comparable scores, of shape (runs, queries, documents)."""

    counts: Numbers
    """How many runs hold a pair: (queries, documents)."""

    real: NDArray[np.bool_]
    """What is no padding: (queries, documents)."""

    grades: Floats
    """Of each document, 0 without judgement: (queries, documents)."""

    metric: Measured
    method: Method
    known: dict[Setting, Floats] = field(default_factory=dict)
    """What was measured: settings -> values of the queries."""

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        qrels: Qrels,
        norms: Sequence[Norm | None],
        *,
        metric: str,
        method: Method,
        minima: Sequence[float] | None,
        k: float,
    ) -> "_Board":
        pairs = align(runs)
        later = np.empty(len(pairs.doc_ids), np.int64)
        later[pc.sort_indices(pairs.doc_ids, sort_keys=[("", "descending")])] = np.arange(
            len(later)
        )
        order = np.lexsort((later[pairs.docs], pairs.queries))
        lists = Lists.of(pairs.queries)
        real = np.arange(lists.lengths.max()) < lists.lengths[:, None]

        def table(column: Any, filler: float) -> Any:
            padded = np.full(real.shape, filler, column.dtype)
            padded[real] = column
            return padded

        judged = [qrels[query] for query in pairs.query_ids.to_pylist()]
        doc_ids = pairs.doc_ids.take(pairs.docs[order]).to_pylist()
        own = zip(pairs.queries.tolist(), doc_ids, strict=True)
        grades = np.array([judged[query].get(doc, 0) for query, doc in own], np.float64)
        scores = {
            norm: comparable(runs, pairs, method, norm, minima=minima, k=k)[:, order]
            for norm in norms
        }
        return cls(
            values={
                norm: np.stack([table(row, 0.0) for row in rows]) for norm, rows in scores.items()
            },
            counts=table(pairs.counts()[order], 1),
            real=real,
            grades=table(grades, 0.0),
            metric=tabular(parse_metric(metric), [list(docs.values()) for docs in judged]),
            method=method,
        )

    def measure(self, setting: Setting) -> Floats:
        """Return the metric of each query."""
        if setting not in self.known:
            norm, weights = setting
            scores = fused(self.values[norm], self.counts, self.method, np.array(weights))
            scores = np.where(self.real, scores, -np.inf).astype(np.float32)
            order = np.argsort(-scores, axis=1, kind="stable")
            self.known[setting] = self.metric(np.take_along_axis(self.grades, order, 1))
        return self.known[setting]


def _norms(
    runs: Sequence[Run], method: Method, norm: Norm | None, minima: Sequence[float] | None
) -> list[Norm | None]:
    """Return the norms to try, the first one is taken where several are equally good."""
    if method == "rrf" or norm is not None:
        return [norm]
    norms: list[Norm | None] = [NORM]
    if minima is not None or all(run.scale in MINIMA for run in runs):
        norms.append("theoretical")
    return norms if method == "mnz" else [*norms, "z", "none"]


def _best(board: _Board, rows: Numbers) -> Setting:
    """Return what does best on some of the queries."""
    members = len(next(iter(board.values.values())))
    steps = next(n for n in STEPS if n == 1 or comb(n + members - 1, n) <= POINTS)

    def mean(setting: Setting) -> float:
        return round(float(board.measure(setting)[rows].mean()), 9)

    points = simplex(members, steps)
    best = max(((norm, point) for norm in board.values for point in points), key=mean)
    size = 1 / steps
    while size > 1 / STEPS[0]:
        size /= 2
        while True:
            near = max([best, *((best[0], w) for w in transfers(best[1], size))], key=mean)
            if near == best:
                break
            best = near
    return best


def simplex(members: int, steps: int) -> list[Weights]:
    """Return all weights that are multiples of 1 / steps and add up to 1, and the equal ones.

    The nearest to equal weights come first.
    """
    grid = {(1 / members,) * members}
    for bars in combinations(range(steps + members - 1), members - 1):
        edges = (-1, *bars, steps + members - 1)
        grid.add(tuple((b - a - 1) / steps for a, b in pairwise(edges)))
    return sorted(grid, key=lambda point: (sum(w * w for w in point), point))


def transfers(weights: Weights, size: float) -> Iterator[Weights]:
    """Yield weights of which one has given `size`, or all that it had, to another."""
    for giver, taker in permutations(range(len(weights)), 2):
        moved = list(weights)
        given = min(size, moved[giver])
        if given > 0:
            moved[giver] = round(moved[giver] - given, 9)
            moved[taker] = round(moved[taker] + given, 9)
            yield tuple(moved)
