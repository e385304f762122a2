"""How far a judge agrees with people: on single pairs, and on the order of systems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrodistill.base.types import Qrels
from retrodistill.data.rankings.correlation import kendall_tau
from retrodistill.data.rankings.metrics import evaluate, parse_metric
from retrodistill.data.rankings.segments import Segments
from retrodistill.data.store.runs import Run

METRIC = "ndcg@10"
LEAST_RUNS = 3
"""Two runs have two orders: a judge that knows nothing gets theirs right half of the time."""

RELEVANT = 1
"""Grade from which on a document is relevant."""

Table = tuple[str, Sequence[str], Sequence[Sequence[str | float | None]]]
"""Title, columns, rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairAgreement:
    """Agreement on a set of pairs."""

    pairs: int
    share: float | None
    """Share of pairs that both call relevant, or both call not relevant."""

    kappa: float | None
    """Cohen's kappa of that; None where the human grades are all on one side."""

    weighted_kappa: float | None
    """Quadratic weighted kappa of the grades; None where people gave two grades only."""

    @classmethod
    def of(cls, human: Sequence[int], machine: Sequence[int]) -> "PairAgreement":
        """Return the agreement on pairs, each with a grade of either; below 0 counts as 0."""
        people, judge = (np.maximum(np.array(grades, int), 0) for grades in (human, machine))
        relevant, called = people >= RELEVANT, judge >= RELEVANT
        graded = len(people) > 0 and people.max() > RELEVANT
        return cls(
            pairs=len(people),
            share=float((relevant == called).mean()) if len(people) else None,
            kappa=_kappa(relevant.astype(int), called.astype(int)),
            weighted_kappa=_kappa(people, judge, weights="quadratic") if graded else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """A judge's grades against those that people gave to a split."""

    split: str
    judged: PairAgreement
    """On the pairs that people judged too."""

    assumed: PairAgreement
    """On all pairs of the queries that people judged, an unjudged one taken as not relevant."""

    confusion: Mapping[str, Mapping[str, int]]
    """Human grade, or `none` of an unjudged pair -> the judge's grade -> pairs."""

    systems: Mapping[str, tuple[float, float]]
    """System -> nDCG@10 by human grades, and by the judge's, on the queries that both judged."""

    tau: float | None
    """Kendall's tau-b of the systems' order by the two; None for fewer than three systems."""

    queries: int
    depth: int
    """Documents of each list that were pooled."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest, with what they do not say."""
        return {**asdict(self), "metric": METRIC, "tau_note": self.tau_note}

    @property
    def tau_note(self) -> str:
        """What the order of the systems says."""
        if len(self.systems) < LEAST_RUNS:
            return (
                f"With fewer than {LEAST_RUNS} runs ({len(self.systems)} here), a tau of their "
                "order says nothing."
            )
        if self.tau is None:
            return "All runs have the same value, so that there is no order to compare."
        return f"Kendall's tau-b of the order of {len(self.systems)} runs: {self.tau:.3f}."

    def tables(self) -> list[Table]:
        """Return the tables that `judge` prints."""
        agreement: Table = (
            f"agreement with the human grades of {self.split}, relevant from grade {RELEVANT} on",
            ("pairs", "number", "agree", "kappa", "weighted kappa"),
            [
                (name, f"{pairs.pairs:,}", pairs.share, pairs.kappa, pairs.weighted_kappa)
                for name, pairs in (
                    ("judged by people", self.judged),
                    ("unjudged taken as not relevant", self.assumed),
                )
            ],
        )
        machine = sorted({grade for row in self.confusion.values() for grade in row}, key=int)
        confusion: Table = (
            "human grades (rows) and the judge's (columns)",
            ("human", *machine),
            [
                (human, *(f"{row.get(grade, 0):,}" for grade in machine))
                for human, row in self.confusion.items()
            ],
        )
        systems: Table = (
            f"{self.queries:,} queries",
            ("system", f"{METRIC}, people", f"{METRIC}, judge"),
            [(name, *values) for name, values in self.systems.items()],
        )
        return [agreement, confusion, systems]

    def notes(self) -> list[str]:
        """Return what is to be said below the tables."""
        notes = [self.tau_note]
        if self.depth < (parse_metric(METRIC).cutoff or 0):
            notes.append(f"The judge saw the first {self.depth} of each list: the rest count 0.")
        if self.judged.pairs and self.judged.kappa is None:
            notes.append(
                f"People gave the {self.judged.pairs:,} pairs that they judged too one kind of "
                "grade, so that a kappa on these is undefined."
            )
        return notes


def agreement_of(
    machine: Qrels, human: Qrels, runs: Mapping[str, Run], *, split: str, depth: int
) -> Agreement | None:
    """Return the agreement on the queries that both judged; None if there is none."""
    queries = [query for query in machine if human.get(query)]
    if not queries:
        return None
    judged: tuple[list[int], list[int]] = ([], [])
    assumed: tuple[list[int], list[int]] = ([], [])
    confusion: dict[str, Counter[str]] = {}
    for query in queries:
        for doc, grade in machine[query].items():
            human_grade = human[query].get(doc)
            row = "none" if human_grade is None else str(human_grade)
            confusion.setdefault(row, Counter())[str(grade)] += 1
            _append(assumed, human_grade or 0, grade)
            if human_grade is not None:
                _append(judged, human_grade, grade)
    systems = _measured(machine, human, runs, queries)
    return Agreement(
        split=split,
        judged=PairAgreement.of(*judged),
        assumed=PairAgreement.of(*assumed),
        confusion={row: dict(confusion[row]) for row in sorted(confusion, key=_by_grade)},
        systems=systems,
        tau=_tau(list(systems.values())),
        queries=len(queries),
        depth=depth,
    )


def _append(columns: tuple[list[int], list[int]], human: int, machine: int) -> None:
    columns[0].append(human)
    columns[1].append(machine)


def _by_grade(row: str) -> float:
    return float("inf") if row == "none" else int(row)


def _measured(
    machine: Qrels, human: Qrels, runs: Mapping[str, Run], queries: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return each system's mean by human grades, and by the judge's."""
    metric = parse_metric(METRIC)
    means: dict[str, list[float]] = {name: [] for name in runs}
    for grades in (human, machine):
        selected = {query: grades[query] for query in queries}
        for name, run in runs.items():
            values = evaluate(selected, run, [metric])[str(metric)]
            means[name].append(sum(values.values()) / len(values))
    return {name: (people, judge) for name, (people, judge) in means.items()}


def _tau(values: Sequence[tuple[float, float]]) -> float | None:
    """Return Kendall's tau-b of two orders of systems."""
    people, judge = (np.round(column, 12) for column in zip(*values, strict=True))
    if len(values) < LEAST_RUNS or np.ptp(people) == 0 or np.ptp(judge) == 0:
        return None
    lists = Segments.of(np.zeros(len(values), np.int64))
    return float(kendall_tau(lists, people, judge)[0])


def _kappa(human: Any, machine: Any, *, weights: str | None = None) -> float | None:
    """Return Cohen's kappa; None where the human grades are all equal: chance explains them."""
    from sklearn.metrics import cohen_kappa_score

    if len(np.unique(human)) < 2:
        return None
    labels = np.arange(max(human.max(), machine.max()) + 1)
    return float(cohen_kappa_score(human, machine, labels=labels, weights=weights))
