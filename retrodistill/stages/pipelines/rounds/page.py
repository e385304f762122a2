"""The result: a table for the terminal, and report.html, report.md and report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrodistill.stages.evaluation import Evaluation
from retrodistill.stages.pipelines.pages import pipeline_report, result_section, write_report
from retrodistill.stages.pipelines.rounds.layout import START, Layout
from retrodistill.stages.pipelines.rounds.stopping import Kept
from retrodistill.stages.reporting import sections
from retrodistill.stages.reporting.content import Report
from retrodistill.stages.reporting.results import caution_of, p_text

COLUMNS = ("student", "dev", "test", "pairs", "new pairs", "new comparisons", "kept")
"""Columns of the table; those without a value are dropped."""

BEST = ("dev", "test")
"""Columns whose highest value is marked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is shown of a student."""

    name: str
    value: float
    """What decides, on the dev split."""

    pairs: int | None = None
    """Pairs that it learned from with a teacher's scores."""

    new: int | None = None
    """Those among them that no earlier round had scored."""

    compared: int | None = None
    """Comparisons that no earlier round had asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What the rounds end with."""

    kept: Kept
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """The final table."""

    students: Sequence[Row]
    evaluation: Mapping[str, Any]
    """`Evaluation.to_dict()` of all students."""

    lines: Sequence[str]
    """What was kept, and why the rounds ended."""

    title: str

    @property
    def paid(self) -> bool:
        """Return whether a trained student is kept."""
        return self.kept.paid


def result_of(
    layout: Layout, kept: Kept, students: Sequence[Row], evaluation: Evaluation
) -> Result:
    """Return the table and the sentences of rounds that are done."""
    config = layout.config
    content = evaluation.to_dict()
    tested = {system["name"]: system["metrics"] for system in content["systems"]}
    rows = [
        (
            row.name,
            f"{row.value:.4f}",
            f"{tested[row.name][config.metric]:.4f}" if config.test_split else "-",
            *(
                "-" if count is None else f"{count:,}"
                for count in (row.pairs, row.new, row.compared)
            ),
            "yes" if row.name == kept.name else "",
        )
        for row in students
    ]
    columns = [column for column in range(len(COLUMNS)) if any(row[column] != "-" for row in rows)]
    test = f", test: {config.test_split}" if config.test_split else ""
    return Result(
        kept=kept,
        columns=[COLUMNS[column] for column in columns],
        rows=[tuple(row[column] for column in columns) for row in rows],
        students=students,
        evaluation=content,
        lines=sentences(layout, kept, content),
        title=f"{config.metric} (dev: {config.dev_split}{test})",
    )


def sentences(layout: Layout, kept: Kept, evaluation: Mapping[str, Any]) -> list[str]:
    """Return what was kept, whether that may be chance, and why the rounds ended."""
    config = layout.config
    value, start = kept.values[kept.name], kept.values[START]
    where = f"{config.metric} on {config.dev_split!r}"
    lines = [f"Ended after {len(kept.values) - 1} trainings: {kept.stops}."]
    if kept.paid:
        lines.append(
            f"Kept {kept.name!r}: {where} {value:.4f}, {value - start:+.4f} against start."
        )
    else:
        lines.append(
            f"It did not pay: {where} of no student is above that of the start, {start:.4f}. "
            "student/ holds the start."
        )
    for test in evaluation["tests"]:
        if kept.paid and test["metric"] == config.metric and kept.name in (test["a"], test["b"]):
            p = test["p_corrected"]
            doubt = "" if p < sections.LEVEL else ", so it may be chance"
            split = config.test_split or config.dev_split
            lines.append(f"Corrected p of the difference on {split!r}: {p_text(p)}{doubt}.")
    if config.test_split is None and kept.paid:
        lines.append(
            "These queries have also chosen the student, which flatters it: --test-split names "
            "others to measure on."
        )
    if caution := caution_of(evaluation):
        lines.append(f"Mind how this was measured{caution}.")
    return lines


def write_pages(layout: Layout, result: Result) -> None:
    """Write report.html, report.md and report.json."""
    rounds = {
        "kept": result.kept.name,
        "paid": result.paid,
        "stopped": result.kept.stops,
        "students": [asdict(row) for row in result.students],
        "verdict": list(result.lines),
    }
    write_report(report_of(layout, result), layout.out, {"rounds": rounds})


def report_of(layout: Layout, result: Result) -> Report:
    """Return the result as a report, for its renderers."""
    section = result_section(
        "rounds",
        "What was kept",
        result.lines,
        result.rows,
        caption=f"Students, {result.title}",
        columns=result.columns,
        note="pairs: what a student learned from, with scores. new pairs: those of them that no "
        "earlier round had scored.",
    )
    title = f"Rounds of {layout.config.recipe} on {layout.config.data}"
    return pipeline_report(title, section, result.evaluation, layout.out)
