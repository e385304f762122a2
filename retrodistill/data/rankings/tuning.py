"""Fusion weights, tuned on judged queries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, pairwise, permutations
from math import comb
from typing import Any, TypeAlias

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.aligning import Aligned
from retrodistill.data.rankings.fusing import Fusion, Method, fuse_runs
from retrodistill.data.rankings.metric_tables import TableMetric, table_metric
from retrodistill.data.rankings.metrics import evaluate, parse_metric
from retrodistill.data.rankings.normalising import MINIMA, NORM, Norm
from retrodistill.data.rankings.segments import Floats, Numbers, Segments
from retrodistill.data.store.runs import Run

POINTS = 100
"""Most weight vectors in the first grid."""

STEPS = (20, 10, 5, 4, 3, 2, 1)
"""Steps into which the first grid may divide a weight; 1 / 20 is the finest that is searched."""

ENOUGH = 100
"""Fewest judged queries for a two-fold cross-validation of the tuning."""

Weights: TypeAlias = tuple[float, ...]
Setting: TypeAlias = tuple[Norm | None, Weights]
"""Norm (None: ranks) and weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Tuned weights; every value is a mean over the judged queries."""

    method: Method
    norm: Norm | None
    """None: ranks."""

    weights: Weights
    """One for each run; their sum is 1."""

    k: float
    minima: Weights | None
    metric: str
    queries: int
    """Number of judged queries that at least one run holds."""

    singles: Weights
    """Each run alone."""

    rrf: float
    """Reciprocal ranks with equal weights."""

    equal: float
    """The method with equal weights; by min-max, unless a norm was requested."""

    fitted: float
    """The method with these weights, on the queries that they were tuned on: too high."""

    held_out: float | None
    """The same by two-fold cross-validation (None: too few queries)."""

    def fuse(self, runs: Sequence[Run]) -> Run:
        """Return runs of the same systems for other queries, in the same order, as one run."""
        return fuse_runs(
            runs, self.method, weights=self.weights, norm=self.norm, minima=self.minima, k=self.k
        )

    def rows(self, names: Sequence[str]) -> list[tuple[str, float]]:
        """Return rows of a label and a value; `names` are those of the runs."""
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

    A grid on the simplex is searched with every norm, then a coordinate search from the best point
    moves weight from one run to another, in steps that are halved down to 1/20. Of equally good
    weights, those nearer to equal ones are taken.

    The weights are tuned on these very queries, so `fitted` is too high. With 100 queries or more,
    `held_out` is measured by two-fold cross-validation, with halves drawn by `seed`.

    Raises:
        ConfigError: fewer than two runs, or a method without weights.
        DataError: the runs hold none of the judged queries.

    Source: Bruch et al. 2023, arXiv:2210.11934, who tune a convex combination on a few queries.

    """
    fusion = Fusion(method=method, norm=norm, minima=minima, k=k)
    if method == "rerank" or len(runs) < 2:
        raise ConfigError(
            f"tuning needs a method with weights and two runs or more, but got {method} and "
            f"{len(runs)} runs."
        )
    in_runs = set().union(*(run.query_ids for run in runs))
    judged = {query: docs for query, docs in qrels.items() if docs and query in in_runs}
    if not judged:
        raise DataError(
            f"the runs to tune on hold none of the judged queries: they have ids like "
            f"{sorted(in_runs)[:3]}, the judgements {list(qrels)[:3]}. Check the split."
        )
    runs = [run.select(judged) for run in runs]
    norms = _norms(runs, fusion)
    board = _Board.of(runs, judged, fusion, norms, metric=metric)
    all_queries = np.arange(len(judged))
    chosen, weights = _best(board, all_queries)
    # two-fold cross-validation: each half is measured with what the other half chooses
    held_out = None
    if len(judged) >= ENOUGH:
        halves = np.array_split(np.random.default_rng(seed).permutation(all_queries), 2)
        values = np.zeros(len(judged))
        for tuned, measured in (halves, halves[::-1]):
            values[measured] = board.measure(_best(board, tuned))[measured]
        held_out = float(values.mean())

    def mean(run: Run) -> float:
        (by_query,) = evaluate(judged, run, [parse_metric(metric)]).values()
        return float(np.mean(list(by_query.values())))

    tuned_fusion = replace(fusion, norm=chosen)
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
        equal=mean(fusion.fuse(runs)),
        fitted=mean(tuned_fusion.fuse(runs, weights=weights)),
        held_out=held_out,
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Board:
    """The judged queries' pairs as padded tables, so that weights are measured without a Run.

    A row is a query; its documents are in descending order of ids, which with a stable sort is the
    tie rule of runs.
    """

    fusion: Fusion

    values: Mapping[Norm | None, Floats]
    """Norm -> normalised scores, of shape (runs, queries, documents)."""

    counts: Numbers
    """How many runs hold each pair: (queries, documents)."""

    is_pair: NDArray[np.bool_]
    """False where there is padding: (queries, documents)."""

    grades: Floats
    """Of each document, 0 without judgement: (queries, documents)."""

    metric: TableMetric
    measured: dict[Setting, Floats] = field(default_factory=dict)
    """Cache: settings -> value of each query."""

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        qrels: Qrels,
        fusion: Fusion,
        norms: Sequence[Norm | None],
        *,
        metric: str,
    ) -> "_Board":
        """Return the tables of runs whose queries are all judged."""
        pairs = replace(fusion, norm=norms[0]).aligned(runs)  # the same for all that are tried
        by_norm = {norm: replace(fusion, norm=norm).comparable(runs, pairs) for norm in norms}
        # order of the pairs: by query, then by descending document id
        order = np.lexsort((_descending(pairs)[pairs.docs], pairs.queries))
        lengths = Segments.of(pairs.queries).lengths
        is_pair = np.arange(lengths.max()) < lengths[:, None]

        def table(column: Any, padding: float) -> Any:
            padded = np.full(is_pair.shape, padding, column.dtype)
            padded[is_pair] = column
            return padded

        # grades of the pairs
        judged = [qrels[query] for query in pairs.query_ids.to_pylist()]
        doc_ids = pairs.doc_ids.take(pairs.docs[order]).to_pylist()
        ordered = zip(pairs.queries.tolist(), doc_ids, strict=True)
        grades = np.array([judged[query].get(doc, 0) for query, doc in ordered], np.float64)
        return cls(
            fusion=fusion,
            values={
                norm: np.stack([table(scores[order], 0.0) for scores in values])
                for norm, values in by_norm.items()
            },
            counts=table(pairs.counts()[order], 1),
            is_pair=is_pair,
            grades=table(grades, 0.0),
            metric=table_metric(parse_metric(metric), [list(docs.values()) for docs in judged]),
        )

    def measure(self, setting: Setting) -> Floats:
        """Return the metric of each query."""
        if setting not in self.measured:
            norm, weights = setting
            relative = np.array(weights) / np.mean(weights)
            scores = self.fusion.fused(self.values[norm], self.counts, relative[:, None, None])
            scores = np.where(self.is_pair, scores, -np.inf).astype(np.float32)
            order = np.argsort(-scores, axis=1, kind="stable")
            self.measured[setting] = self.metric(np.take_along_axis(self.grades, order, 1))
        return self.measured[setting]


def _descending(pairs: Aligned) -> Numbers:
    """Return the position of each document in the descending order of all ids."""
    positions = np.empty(len(pairs.doc_ids), np.int64)
    order = pc.sort_indices(pairs.doc_ids, sort_keys=[("", "descending")])
    positions[order] = np.arange(len(positions))
    return positions


def _norms(runs: Sequence[Run], fusion: Fusion) -> list[Norm | None]:
    """Return the norms to try; of equally good ones the first is taken."""
    if fusion.method == "rrf" or fusion.norm is not None:
        return [fusion.norm]
    norms: list[Norm | None] = [NORM]
    if fusion.minima is not None or all(run.scale in MINIMA for run in runs):
        norms.append("theoretical")
    return norms if fusion.method == "mnz" else [*norms, "z", "none"]


def _best(board: _Board, rows: Numbers) -> Setting:
    """Return the setting that does best on some of the queries."""
    runs = len(next(iter(board.values.values())))
    steps = next(n for n in STEPS if n == 1 or comb(n + runs - 1, n) <= POINTS)

    def mean(setting: Setting) -> float:
        return round(float(board.measure(setting)[rows].mean()), 9)

    # the grid
    points = simplex(runs, steps)
    best = max(((norm, point) for norm in board.values for point in points), key=mean)
    # coordinate search with steps of half the size, as long as it improves
    size = 1 / steps
    while size > 1 / STEPS[0]:
        size /= 2
        while True:
            near = max([best, *((best[0], w) for w in transfers(best[1], size))], key=mean)
            if near == best:
                break
            best = near
    return best


def simplex(runs: int, steps: int) -> list[Weights]:
    """Return all weights that are multiples of 1 / steps with the sum 1, and the equal ones.

    The nearest to equal weights come first.
    """
    grid = {(1 / runs,) * runs}
    for bars in combinations(range(steps + runs - 1), runs - 1):
        edges = (-1, *bars, steps + runs - 1)
        grid.add(tuple((b - a - 1) / steps for a, b in pairwise(edges)))
    return sorted(grid, key=lambda point: (sum(w * w for w in point), point))


def transfers(weights: Weights, size: float) -> Iterator[Weights]:
    """Yield weights with `size`, or all that there is, moved from one run to another."""
    for source, target in permutations(range(len(weights)), 2):
        moved = list(weights)
        step = min(size, moved[source])
        if step > 0:
            moved[source] = round(moved[source] - step, 9)
            moved[target] = round(moved[target] + step, 9)
            yield tuple(moved)
