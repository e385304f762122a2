"""Audit of teachers on a sample of labelled queries, before any money is spent on scores."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.types import Encoder, Pairs, Qrels, Teacher
from retrodistill.data.rankings import Calibration, calibrated_temperature
from retrodistill.data.store.lineage import Lineage, own_lineage
from retrodistill.data.store.runs import Run
from retrodistill.stages.scoring.candidates import pairs_of

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

FIRST_STAGE, STUDENT = "first stage", "student"
BINS, BARS = 16, " ▁▂▃▄▅▆▇█"
ListScores = Sequence[NDArray[np.float64]]
"""Scores of each query's candidates, in the first stage's order."""


@dataclass(frozen=True, slots=True)
class TeacherPairAgreement:
    """How similarly two teachers rank."""

    a: str
    b: str
    tau: float | None
    """Mean of Kendall's tau-b over the lists in which neither ties all candidates, or None."""

    lists: int
    """Lists that `tau` is the mean of."""

    same_first: float
    """Share of the queries for which both put the same document first."""


@dataclass(frozen=True, slots=True)
class ScoreShape:
    """How a teacher's raw scores are distributed over the sample."""

    scale: str
    seconds: float
    """Time that the sample took, loading the model not included."""

    quartiles: tuple[float, ...]
    """Lowest score, lower quartile, median, upper quartile, highest score."""

    histogram: tuple[int, ...]
    """Counts in BINS equal stretches from the lowest to the highest score."""

    ties: float
    """Share of the candidates whose score another candidate of their query has too."""

    constant: int
    """Lists of two or more candidates with one score for all: no student learns from them."""

    calibration: Calibration | None
    """Temperature for the target perplexity; None where none reaches it."""

    @property
    def bars(self) -> str:
        """The histogram as one character for each stretch; an empty one is a space."""
        return "".join(BARS[-(-8 * count // max(self.histogram))] for count in self.histogram)


@dataclass(frozen=True, slots=True)
class Audit:
    """Teachers on a sample of queries: every run ranks the same lists."""

    runs: Mapping[str, Run]
    """The first stage, the student's start if there is one, then each teacher by its name."""

    qrels: Qrels
    """Judgements of the sampled queries."""

    teachers: Mapping[str, ScoreShape]
    agreement: Sequence[TeacherPairAgreement]
    relevant: int
    """Labelled relevant documents of the sampled queries ..."""

    missed: int
    """... of which these are not in the lists: no teacher can rank them, and none was added."""

    @property
    def baselines(self) -> list[str]:
        """Names of what a teacher must rank better than."""
        return [name for name in self.runs if name not in self.teachers]

    def tables(self) -> Iterator[tuple[tuple[str, ...], list[tuple[str | float | None, ...]]]]:
        """Yield columns and rows: scores of each teacher, its lists, and agreement of each two."""
        shapes: list[tuple[str | float | None, ...]] = []
        lists: list[tuple[str | float | None, ...]] = []
        for name, s in self.teachers.items():
            shapes.append((name, *(f"{value:.4g}" for value in s.quartiles), s.bars))
            c = s.calibration
            flat = (f"{c.temperature:.4g}", c.perplexity) if c else (None, None)
            lists.append((name, s.scale, f"{s.ties:.1%}", str(s.constant), *flat, s.seconds))
        yield ("teacher", "lowest", "25 %", "median", "75 %", "highest", ""), shapes
        measures = ("scale", "ties", "constant lists", "temperature", "perplexity", "seconds")
        yield ("teacher", *measures), lists
        if self.agreement:
            columns = ("teacher", "and teacher", "Kendall's tau-b", "same first")
            yield columns, [(r.a, r.b, r.tau, f"{r.same_first:.1%}") for r in self.agreement]

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain values, with each run's scores."""
        return {
            "queries": list(self.qrels),
            "relevant": self.relevant,
            "missed": self.missed,
            "teachers": {name: asdict(shape) for name, shape in self.teachers.items()},
            "agreement": [asdict(row) for row in self.agreement],
            "runs": {name: run.to_dict() for name, run in self.runs.items()},
        }


def audit_teachers(
    collection: "Collection",
    split: str,
    first_stage: Run,
    teachers: Mapping[str, Teacher],
    *,
    student: Encoder | None = None,
    queries: int = 100,
    depth: int = 20,
    seed: int = 0,
) -> Audit:
    """Return how teachers rerank the first stage's best `depth` for a sample of labelled queries.

    Only queries with a relevant document (a grade above 0) and a list are drawn. The student
    reranks by inner products, as an index would. The perplexity that temperatures are suggested
    for is a fifth of the depth, and at least 2.

    Raises:
        ConfigError: there is no such split, or a teacher gives no scores.
        DataError: the first stage has no labelled query of the split, an id is not in the
            collection, or a score is not finite.

    """
    for name, teacher in teachers.items():
        if name in (FIRST_STAGE, STUDENT) or not isinstance(teacher, Teacher):
            raise ConfigError(
                f"{name!r} cannot be audited: a teacher needs a name of its own, and must score "
                "single documents (a pairwise one has preferences instead)."
            )
    qrels = _sample(collection, split, first_stage, queries, seed)
    lists = first_stage.select(qrels).top(depth)
    pairs = pairs_of(collection, lists.table)
    relevant = {(q, d) for q, graded in qrels.items() for d, grade in graded.items() if grade > 0}
    missed = relevant.difference((q, d) for q, docs, _ in lists.lists() for d in docs)
    log.info(
        f"{len(qrels):,} queries, {len(pairs):,} pairs; {len(missed):,} of {len(relevant):,} "
        "relevant documents are not in the lists, so no teacher can rank them."
    )
    runs, scores, shapes = {FIRST_STAGE: lists}, {}, {}
    if student is not None:
        inner = _inner_products(student, pairs)
        runs[STUDENT], _ = _reranked(lists, STUDENT, inner, own_lineage(student))
    for name, teacher in teachers.items():
        started = time.perf_counter()
        values = teacher.score(pairs)
        seconds = time.perf_counter() - started
        who, lineage = f"teacher {name!r}", own_lineage(teacher)
        runs[name], scores[name] = _reranked(lists, who, values, lineage)
        shapes[name] = _shape(runs[name], scores[name], teacher.scale, seconds, depth)
    alike = [_agreement(a, b, runs, scores) for a, b in combinations(teachers, 2)]
    return Audit(runs, qrels, shapes, alike, len(relevant), len(missed))


def _sample(collection: "Collection", split: str, run: Run, queries: int, seed: int) -> Qrels:
    """Return the judgements of some queries that have a relevant document and a list."""
    judged = {
        query: graded
        for query, graded in collection.qrels(split).items()
        if any(grade > 0 for grade in graded.values())
    }
    candidates = [query for query in run.query_ids if query in judged]
    if not candidates:
        raise DataError(
            f"the first stage has no labelled query of split {split!r}: it has ids like "
            f"{run.query_ids[:3]}, the labels have ids like {list(judged)[:3]}. "
            "Give the run of this split, or another --split."
        )
    if len(candidates) < len(judged):
        log.info(
            f"{len(judged) - len(candidates):,} labelled queries have no list and are not drawn."
        )
    drawn = np.sort(np.random.default_rng(seed).permutation(len(candidates))[:queries])
    return {query: judged[query] for query in (candidates[row] for row in drawn)}


def _inner_products(encoder: Encoder, pairs: Pairs) -> NDArray[np.float32]:
    queries = encoder.encode_queries([query.full_text for query in pairs.queries])
    docs = encoder.encode_docs([doc.full_text for doc in pairs.docs])
    scores: NDArray[np.float32] = np.einsum(
        "pd,pd->p", queries[pairs.query_rows], docs[pairs.doc_rows]
    )
    return scores


def _reranked(
    lists: Run, who: str, scores: NDArray[np.float32], lineage: Lineage
) -> tuple[Run, ListScores]:
    """Return the lists in the order of new scores, and these scores list by list."""
    if scores.shape != (len(lists),):
        raise DataError(
            f"{who} gave scores of shape {scores.shape} for {len(lists)} pairs, "
            "but must give one each."
        )
    columns = (lists.table["query_id"], lists.table["doc_id"], scores)
    run = Run.from_columns(*columns, source=who, lineage=lists.lineage | lineage)
    ends = np.cumsum([len(docs) for _, docs, _ in lists.lists()])
    return run, np.split(scores.astype(np.float64), ends[:-1])


def _shape(run: Run, lists: ListScores, scale: str, seconds: float, depth: int) -> ScoreShape:
    values = np.concatenate(lists)
    counts = [np.unique(scores, return_counts=True)[1] for scores in lists]
    tied = sum(int(count[count > 1].sum()) for count in counts)
    try:
        calibration = calibrated_temperature(run, max(2.0, depth / 5))
    except DataError:
        calibration = None
    return ScoreShape(
        scale,
        seconds,
        quartiles=tuple(np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()),
        histogram=tuple(np.histogram(values, BINS)[0].tolist()),
        ties=tied / len(values),
        constant=sum(len(count) == 1 and count[0] > 1 for count in counts),
        calibration=calibration,
    )


def _agreement(
    a: str, b: str, runs: Mapping[str, Run], scores: Mapping[str, ListScores]
) -> TeacherPairAgreement:
    from scipy.stats import kendalltau

    taus = [
        float(kendalltau(scores_a, scores_b).statistic)
        for scores_a, scores_b in zip(scores[a], scores[b], strict=True)
        if np.ptp(scores_a) > 0 and np.ptp(scores_b) > 0
    ]
    best = [{query: docs[0] for query, docs, _ in runs[name].lists()} for name in (a, b)]
    same = sum(best[1][query] == doc for query, doc in best[0].items()) / len(best[0])
    return TeacherPairAgreement(a, b, float(np.mean(taus)) if taus else None, len(taus), same)
