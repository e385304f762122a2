"""What the reports of pipelines share: their result first, then figures, tests and the plan."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.files import json_text, write_atomically
from retrodistill.stages.pipelines.steps import PLAN
from retrodistill.stages.reporting import sections
from retrodistill.stages.reporting.content import Block, Cell, Code, Report, Section, Table, Text
from retrodistill.stages.reporting.html import as_html
from retrodistill.stages.reporting.markdown import as_markdown
from retrodistill.stages.reporting.results import caution_of
from retrodistill.stages.reporting.tables import number_in
from retrodistill.stages.reporting.unseen import unseen


def result_section(
    key: str, title: str, lines: Sequence[str], rows: Sequence[Sequence[str]], **table: Any
) -> Section:
    """Return sentences and a table, whose first column has names; `table` has its other fields."""
    cells = [
        [
            Cell(text=cell, number=number_in(cell) if column else None)
            for column, cell in enumerate(row)
        ]
        for row in rows
    ]
    blocks: list[Block] = [*(Text(text=line) for line in lines), Table(rows=cells, **table)]
    return Section(key=key, title=title, blocks=blocks)


def pipeline_report(
    title: str, result: Section, evaluation: Mapping[str, Any], out: Path, *, about: str = ""
) -> Report:
    """Return the report of the pipeline in `out`; `about` stands before its plan."""
    queries = evaluation["settings"]["queries"]
    parts = [
        result,
        sections.headline(evaluation, queries=queries),
        sections.tests_section(evaluation["tests"]),
    ]
    if (unseen_section := unseen(evaluation)) is not None:
        parts.append(unseen_section)
    plan = Code(
        title=f"The plan: {out / PLAN}", text=(out / PLAN).read_text(encoding="utf-8"), folded=True
    )
    blocks: list[Block] = [*([Text(text=about)] if about else []), plan]
    parts.append(Section(key="plan", title="How it was made", blocks=blocks))
    return Report(
        title=title,
        about=f"{queries:,} queries{caution_of(evaluation)}.",
        evaluation=evaluation,
        sections=parts,
    )


def write_report(report: Report, out: Path, beside: Mapping[str, Any]) -> None:
    """Write report.html, report.md, and report.json with what is `beside` the report."""
    texts = {
        "report.html": as_html(report),
        "report.md": as_markdown(report),
        "report.json": json_text(report.to_dict() | dict(beside)),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode(errors="replace"))
