"""The parts of a report, each made from plain numbers."""

import math
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from retrodistill.stages.reporting import plots
from retrodistill.stages.reporting.content import Block, Case, Cell, Figure, Section, Table, Text
from retrodistill.stages.reporting.results import CORRECTIONS, TESTS, caution_of, p_text, span_text
from retrodistill.stages.reporting.tables import number_in, shown

LEVEL = 0.05
"""Corrected p below which a difference is marked."""

MOST_BARS = 400
MOST_FIGURES = 6
MOST_TESTS = 400

PerQuery = Mapping[str, Mapping[str, Mapping[str, float]]]
"""System -> metric -> query id -> value."""

Curve = Sequence[tuple[float, float]]


def headline(
    evaluation: Mapping[str, Any], *, queries: int, roles: Mapping[str, str] | None = None
) -> Section:
    """Return the table of systems and metrics, and the intervals of the first metric.

    `roles` says what some systems are.
    """
    systems, tests = evaluation["systems"], evaluation["tests"]
    metrics, judged = list(systems[0]["metrics"]), list(systems[0]["judged"])
    letters = letters_of([system["name"] for system in systems])
    between = "" if len(letters) <= len(ascii_lowercase) else ","
    beaten = _beaten(tests)
    rows = []
    for system in systems:
        name, means = system["name"], system["metrics"]
        label = f"{letters[name]}  {name}" if tests else name
        row = [Cell(text=label, below=(roles or {}).get(name, ""))]
        for metric in metrics:
            best = max(candidate["metrics"][metric] for candidate in systems)
            row.append(
                Cell(
                    text=f"{means[metric]:.4f}",
                    number=means[metric],
                    best=len(systems) > 1 and means[metric] == best,
                    marks=between.join(letters[b] for b in beaten.get((metric, name), ())),
                    below=span_text(*system["intervals"][metric]),
                )
            )
        row += [
            Cell(text=f"{system['judged'][at]:.4f}", number=system["judged"][at]) for at in judged
        ]
        rows.append(row)
    confidence = f"{evaluation['settings']['confidence']:.0%}"
    note = (
        f"Means over {queries:,} judged queries{caution_of(evaluation)}, and their {confidence} "
        "bootstrap intervals. "
        "judged@k: share of the first k documents that have a judgement."
    )
    if tests:
        note += f" A letter behind a value: better than that system with p < {LEVEL:g} "
        note += f"({TESTS[tests[0]['test']]}, {CORRECTIONS[tests[0]['correction']]})."
    same = [f"{s['name']} {s['identical_ids']:,}" for s in systems if s["identical_ids"]]
    if same:
        treatment = "dropped" if evaluation["settings"]["ignore_identical_ids"] else "counted"
        note += f" Documents with the id of their query ({treatment}): {', '.join(same)}."
    blocks: list[Block] = [
        Table(
            caption="Systems and metrics",
            columns=("system", *metrics, *judged),
            rows=rows,
            note=note,
        )
    ]
    if len(systems) > 1:
        points = [
            (s["name"], s["metrics"][metrics[0]], *s["intervals"][metrics[0]]) for s in systems
        ]
        blocks.append(
            Figure(
                caption=f"{metrics[0]} with its {confidence} interval over queries; two intervals "
                "that overlap do not say that two systems are equal, the paired tests do more",
                svg=plots.intervals(points, label=metrics[0]),
            )
        )
    return Section(key="systems", title="Results", blocks=blocks)


def tests_section(tests: Sequence[Mapping[str, Any]]) -> Section:
    """Return the tests between systems, one table a metric."""
    return Section(key="tests", title="Tests", blocks=tables_of_tests(tests))


def tables_of_tests(
    tests: Sequence[Mapping[str, Any]], *, title: str = "", folded: bool = False
) -> list[Block]:
    """Return a table of tests for each metric, its caption behind `title`.

    All but the first are folded, and that one too where `folded` is set.
    """
    blocks: list[Block] = []
    if not tests:
        return blocks
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for test in tests[:MOST_TESTS]:
        rows.setdefault(test["metric"], []).append(test)
    correction = CORRECTIONS[tests[0]["correction"]]
    for number, (metric, pairwise) in enumerate(rows.items()):
        table = [
            [
                Cell(text=f"{test['a']} - {test['b']}"),
                Cell(text=f"{test['difference']:+.4f}", number=test["difference"]),
                Cell(text=span_text(*test["interval"], sign="+"), number=test["interval"][0]),
                *(Cell(text=f"{test[n]:,}", number=test[n]) for n in ("wins", "ties", "losses")),
                Cell(text=p_text(test["p"]), number=test["p"]),
                Cell(
                    text=p_text(test["p_corrected"]),
                    number=test["p_corrected"],
                    best=test["p_corrected"] < LEVEL,
                ),
            ]
            for test in pairwise
        ]
        blocks.append(
            Table(
                caption=f"{title}{metric}: {TESTS[pairwise[0]['test']]}",
                columns=(
                    "systems",
                    "difference",
                    "interval",
                    "wins",
                    "ties",
                    "losses",
                    "p",
                    f"p ({correction})",
                ),
                rows=table,
                folded=folded or number > 0,
            )
        )
    if len(tests) > MOST_TESTS:
        remaining = len(tests) - MOST_TESTS
        blocks.append(Text(text=f"{remaining:,} further tests are in the JSON."))
    return blocks


def deltas(per_query: PerQuery, metric: str, baseline: str, *, tie: float = 1e-9) -> Section:
    """Return how each system's single queries differ from those of the baseline."""
    compared = [name for name in per_query if name != baseline]
    base = per_query[baseline][metric]
    blocks: list[Block] = []
    rows, counted = [], {}
    for name in compared:
        gaps = {query: value - base[query] for query, value in per_query[name][metric].items()}
        better = sum(gap > tie for gap in gaps.values())
        worse = sum(gap < -tie for gap in gaps.values())
        counts = (better, len(gaps) - better - worse, worse)
        mean = sum(gaps.values()) / len(gaps)
        rows.append(
            [Cell(text=name)]
            + [Cell(text=f"{count:,}", number=count) for count in counts]
            + [Cell(text=f"{mean:+.4f}", number=mean)]
        )
        counted[name] = {"better": better, "equal": counts[1], "worse": worse, "mean": mean}
        if len(blocks) < MOST_FIGURES:
            drawn, note = _evenly(sorted(gaps.items(), key=lambda item: -item[1]), MOST_BARS)
            blocks.append(
                Figure(
                    caption=f"{name} less {baseline}: {better:,} better, {worse:,} worse{note}",
                    svg=plots.bars(drawn, label=f"difference in {metric}"),
                )
            )
    table = Table(
        caption=f"Queries against {baseline}, by {metric}",
        columns=("system", "better", "equal", "worse", "mean difference"),
        rows=rows,
    )
    blocks.insert(0, table)
    if len(compared) > MOST_FIGURES:
        omitted = f"Drawn are the first {MOST_FIGURES} of {len(compared)} systems."
        blocks.append(Text(text=omitted))
    data = {"metric": metric, "baseline": baseline, "systems": counted}
    return Section(key="deltas", title="Query by query", blocks=blocks, data=data)


def cost(means: Mapping[str, float], metric: str, milliseconds: Mapping[str, float]) -> Section:
    """Return the metric against the time of a query, with the systems that no other one beats."""
    points = {name: (ms, means[name]) for name, ms in milliseconds.items()}
    front = plots.pareto(list(points.values()))
    best = [name for name, point in points.items() if point in front]
    figure = Figure(
        caption="The line joins the systems that no other one beats in both",
        svg=plots.named_points(
            points, x_label="milliseconds a query (logarithmic)", label=metric, line=front
        ),
    )
    rows = [
        [
            Cell(text=name),
            Cell(text=f"{ms:,.4g}", number=ms),
            Cell(text=f"{value:.4f}", number=value),
            Cell(text="yes" if name in best else "no"),
        ]
        for name, (ms, value) in sorted(points.items(), key=lambda item: item[1])
    ]
    table = Table(
        caption="Time and quality",
        columns=("system", "ms a query", metric, "on the Pareto line"),
        rows=rows,
    )
    data = {"metric": metric, "milliseconds": dict(milliseconds), "pareto": best}
    return Section(key="cost", title="Quality and time", blocks=[figure, table], data=data)


def fidelity_section(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
    *,
    teacher: str,
    system: str,
    relevant: Curve,
    other: Curve,
    pairs: int,
    data: Any = None,
) -> Section:
    """Return how systems follow the teacher, and one's scores against the teacher's.

    `relevant` and `other` are drawn points (teacher's score, student's score) of `pairs` in all.
    """
    cells = [
        [
            Cell(text=shown(cell), number=number_in(cell)) if column else Cell(text=str(cell))
            for column, cell in enumerate(row)
        ]
        for row in rows
    ]
    note = (
        "Over the documents that both scored. 1 is perfect, but for KL (nats, of raw scores at "
        "temperature 1), where 0 is; "
        "compared: queries, shared: the teacher's documents that the system scored."
    )
    blocks: list[Block] = [
        Table(caption=f"Agreement with {teacher}", columns=columns, rows=cells, note=note)
    ]
    series = {"not judged relevant": other, "relevant": relevant}
    series = {name: points for name, points in series.items() if points}
    if series:
        drawn = len(relevant) + len(other)
        sampled = (
            f"{drawn:,} of {pairs:,} pairs, drawn at random" if drawn < pairs else f"{pairs:,}"
        )
        blocks.append(
            Figure(
                caption=f"Scores of {system} against those of {teacher} ({sampled})",
                svg=plots.cloud(series, x_label=f"score of {teacher}", label=f"score of {system}"),
                legend={name: number for number, name in enumerate(series)},
                dots=True,
            )
        )
    return Section(key="fidelity", title="Fidelity to the teacher", blocks=blocks, data=data)


def explanations(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
    *,
    teacher: str,
    data: Any = None,
) -> Section:
    """Return how far students score by the words that the teacher scores by."""
    cells = [
        [
            Cell(text=shown(cell), number=number_in(cell)) if column else Cell(text=str(cell))
            for column, cell in enumerate(row)
        ]
        for row in rows
    ]
    note = (
        "Each word is removed in turn, and what the score loses is its importance: Spearman's "
        "correlation of the student's with the teacher's, with a 95 % interval over pairs of a "
        "query and its relevant document; 1 is perfect, 0 chance."
    )
    table = Table(
        caption=f"Words beside those of {teacher}", columns=columns, rows=cells, note=note
    )
    return Section(key="explanations", title="What scores rest on", blocks=[table], data=data)


def training(manifests: Mapping[str, Mapping[str, Any]]) -> Section | None:
    """Return the curves of losses and of the dev metric that students' manifests hold."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    best: list[list[Cell]] = []
    diverged: list[tuple[str, str, int]] = []
    for name, manifest in manifests.items():
        details = manifest["details"]
        for row in details.get("losses", ()):
            for loss in sorted(row.keys() - {"step"}):
                if math.isfinite(row[loss]):
                    curve = curves.setdefault(loss, {}).setdefault(name, [])
                    curve.append((row["step"], row[loss]))
                elif (name, loss) not in {pair[:2] for pair in diverged}:
                    diverged.append((name, loss, row["step"]))
        dev = details.get("development")
        if dev:
            label = f"{dev['metric']} on {dev['split']}"
            if dev.get("values"):
                values = [(float(step), float(value)) for step, value in dev["values"]]
                curves.setdefault(label, {})[name] = [
                    point for point in values if math.isfinite(point[1])
                ]
            best.append(
                [
                    Cell(text=name),
                    Cell(text=label),
                    Cell(text=f"{dev['value']:.4f}", number=dev["value"]),
                    Cell(text=f"{dev['step']:,}", number=dev["step"]),
                ]
            )
    if not curves and not best and not diverged:
        return None
    numbers = {name: number for number, name in enumerate(manifests)}
    blocks: list[Block] = [
        Figure(
            caption=f"{what}, while training",
            svg=plots.lines(
                {name: curve_values.get(name, ()) for name in numbers}, x_label="step", label=what
            ),
            legend={name: numbers[name] for name in curve_values},
        )
        for what, curve_values in sorted(curves.items())[: 2 * MOST_FIGURES]
        if any(curve_values.values())
    ]
    blocks += [
        Text(text=f"{name}: {loss} is not finite at step {step:,}: the training diverged.")
        for name, loss, step in diverged
    ]
    if best:
        columns = ("student", "measured", "best", "at step")
        blocks.append(Table(caption="Best measurement while training", columns=columns, rows=best))
    return Section(key="training", title="Training", blocks=blocks, data=curves)


def tuning(manifests: Mapping[str, Mapping[str, Any]]) -> Section | None:
    """Return recall against time of the indexes whose manifests hold a tuning."""
    by_index: dict[str, list[Mapping[str, Any]]] = {}
    for name, manifest in manifests.items():
        record = manifest["details"].get("tuning")
        tried = record["tried"] if isinstance(record, Mapping) else record
        if tried:
            by_index[name] = sorted(tried, key=lambda row: row["ms"])
    if not by_index:
        return None
    curves = {name: [(row["ms"], row["recall"]) for row in rows] for name, rows in by_index.items()}
    figure = Figure(
        caption="Recall of the exact search against time; each point is an effort that was tried",
        svg=plots.lines(curves, x_label="milliseconds a query", label="recall"),
        legend={name: number for number, name in enumerate(curves)},
    )
    rows = [
        [Cell(text=name), Cell(text=_effort(row["effort"]))]
        + [Cell(text=f"{row[key]:g}", number=row[key]) for key in ("recall", "ms")]
        for name, measured in by_index.items()
        for row in measured
    ]
    columns = ("index", "effort", "recall", "ms a query")
    table = Table(caption="Efforts that were tried", columns=columns, rows=rows, folded=True)
    return Section(key="tuning", title="Indexes", blocks=[figure, table], data=by_index)


def worst_queries(
    cases: Sequence[Case], *, worse: int, judged: int, others: Sequence[str] = ()
) -> Section:
    """Return the queries that lost most from the first of two systems to the second.

    `others` are the systems that could be shown instead.
    """
    baseline_name, second = cases[0].systems
    caption = f"{second} is worse than {baseline_name} on {worse:,} of {judged:,} queries."
    if worse > len(cases):
        caption += (
            f" Shown are the {len(cases):,} that lost most; {worse - len(cases):,} are omitted."
        )
    if others:
        caption += f" --system shows another system's queries: {', '.join(others)}."
    data = {
        "systems": [baseline_name, second],
        "metric": cases[0].metric,
        "worse": worse,
        "queries": [{"query": case.query, "values": list(case.values)} for case in cases],
    }
    blocks: list[Block] = [Text(text=caption), *cases]
    return Section(key="queries", title="Lost queries", blocks=blocks, data=data)


def letters_of(names: Sequence[str]) -> dict[str, str]:
    """Return a letter for each name; numbers where there are too many."""
    marks = ascii_lowercase if len(names) <= len(ascii_lowercase) else range(1, len(names) + 1)
    return {name: str(mark) for name, mark in zip(names, marks, strict=False)}


def _beaten(tests: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Return (metric, system) -> systems that it is significantly better than."""
    beaten: dict[tuple[str, str], list[str]] = {}
    for test in tests:
        if test["p_corrected"] < LEVEL and test["difference"]:
            pair = (test["a"], test["b"])
            better, worse = pair if test["difference"] > 0 else pair[::-1]
            beaten.setdefault((test["metric"], better), []).append(worse)
    return beaten


def _evenly(rows: Sequence[Any], most: int) -> tuple[list[Any], str]:
    """Return at most `most` rows, evenly spread with both ends, and what to say of it."""
    if len(rows) <= most:
        return list(rows), ""
    positions = [round(position * (len(rows) - 1) / (most - 1)) for position in range(most)]
    return [rows[position] for position in positions], f" (each bar of {most} stands for several)"


def _effort(value: Any) -> str:
    """Return an effort as text: settings of an index, or one number."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={setting}" for name, setting in value.items()) or "its only one"
    return str(value)
