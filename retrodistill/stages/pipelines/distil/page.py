"""The result: a table for the terminal, and report.html, report.md and report.json."""

from collections.abc import Mapping
from typing import Any

from retrodistill.stages.pipelines.distil.choice import CUT_SHARE, METRIC, Choice
from retrodistill.stages.pipelines.distil.layout import Layout, title
from retrodistill.stages.pipelines.pages import pipeline_report, result_section, write_report
from retrodistill.stages.reporting.content import Report
from retrodistill.stages.reporting.results import caution_of, p_text
from retrodistill.stages.reporting.sections import LEVEL

COLUMNS = (
    "system",
    "nDCG@10",
    "Recall@100",
    "docs/s",
    "query ms",
    "model MB",
    "index MB",
)

CostRows = Mapping[str, Mapping[str, float | None]]
"""Folder of a system -> its costs."""


def table_rows(evaluation: Mapping[str, Any], costs: CostRows) -> list[tuple[str, ...]]:
    """Return a row of COLUMNS for each system."""
    folders = {title(name): name for name in costs}
    rows: list[tuple[str, ...]] = []
    for system in evaluation["systems"]:
        means, cost = system["metrics"], costs[folders[system["name"]]]
        rate = cost["docs_per_second"]
        rows.append(
            (
                system["name"],
                f"{means[METRIC]:.4f}",
                f"{means['recall@100']:.4f}",
                "-" if rate is None else f"{rate:,.0f}",
                f"{cost['query_ms']:.1f}",
                f"{cost['model_mb']:.0f}",
                f"{cost['index_mb']:.1f}",
            )
        )
    return rows


def verdict(evaluation: Mapping[str, Any], choice: Choice, layout: Layout) -> list[str]:
    """Return sentences: which system to use, and why."""
    means = {system["name"]: system["metrics"][METRIC] for system in evaluation["systems"]}
    untouched, chosen = means[title("untouched")], means[title(choice.name)]
    decisive = layout.dev
    where = f"split {decisive.split!r}" if decisive and decisive.split else "the judged log"
    lines = []
    if not choice.paid:
        values = ", ".join(f"{title(name)} {value:.4f}" for name, value in choice.values.items())
        lines.append(
            f"It did not pay: on {where} no trained student reaches "
            f"{'' if layout.retrieves_whole else f'{CUT_SHARE:.0%} of '}the model that it came "
            f"from ({METRIC}: {values}). student/ and index/ hold the untouched model."
        )
    else:
        gain = chosen - untouched
        lines.append(
            f"Use {title(choice.name)!r}: {METRIC} {chosen:.4f}, {gain:+.4f} against the untouched "
            f"model{_significance(evaluation, title(choice.name))}; student/ and index/ hold it."
        )
        if layout.retrieves_whole:
            lines.append(
                "Documents keep their vectors: an index of the untouched model serves it as well "
                "(search --query-model student)."
            )
    dense = title(choice.name)
    best = max((name for name in means if name != title("teacher")), key=lambda name: means[name])
    if best != dense and means[best] > chosen:
        lines.append(
            f"{best!r} is better still ({means[best]:.4f}), if a lexical engine may run beside "
            "the index; the student's case is one index alone."
            if "BM25" in best
            else f"On these queries {best!r} is higher ({means[best]:.4f})."
        )
    if layout.dev == layout.test and choice.paid:
        lines.append(
            "These queries have also chosen the student, which flatters it a little: a dev split "
            "of other queries would choose instead."
        )
    if caution := caution_of(evaluation):
        lines.append(f"Mind how this was measured{caution}.")
    return lines


def report_of(
    layout: Layout, evaluation: Mapping[str, Any], costs: CostRows, lines: list[str], about: str
) -> Report:
    """Return the result as a report, for its renderers."""
    queries = evaluation["settings"]["queries"]
    section = result_section(
        "result",
        "Which to use",
        lines,
        table_rows(evaluation, costs),
        caption="Quality and costs",
        columns=COLUMNS,
        note=f"{queries:,} queries. docs/s: documents that are embedded or indexed in a second. "
        "query ms: median time of a single query, of the teacher with the scores of "
        f"{layout.config.depth} candidates. model MB: weights that read a query.",
    )
    heading = f"A student for {layout.config.data}"
    return pipeline_report(heading, section, evaluation, layout.out, about=about)


def write_pages(
    layout: Layout, report: Report, costs: CostRows, choice: Choice, lines: list[str]
) -> None:
    """Write report.html, report.md and report.json."""
    result: dict[str, Any] = {
        "chosen": choice.name,
        "paid": choice.paid,
        "decided_by": dict(choice.values),
    }
    result |= {"verdict": lines, "costs": {k: dict(v) for k, v in costs.items()}}
    write_report(report, layout.out, {"distil": result})


def _significance(evaluation: Mapping[str, Any], name: str) -> str:
    """Return the corrected p of a system against the untouched one, in brackets."""
    for test in evaluation["tests"]:
        if test["metric"] == METRIC and {test["a"], test["b"]} == {name, title("untouched")}:
            p = test["p_corrected"]
            doubt = "" if p < LEVEL else ", so it may be chance"
            return f" (corrected p {p_text(p)}{doubt})"
    return ""
