"""A report from what was measured: which parts it has, and the files that it becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.files import json_text, new_folder
from retrodistill.base.types import Qrels
from retrodistill.stages.reporting import sections
from retrodistill.stages.reporting.cases import CaseLimits, score_points, worst_cases
from retrodistill.stages.reporting.content import Report, Section
from retrodistill.stages.reporting.html import as_html
from retrodistill.stages.reporting.latex import as_latex
from retrodistill.stages.reporting.markdown import as_markdown
from retrodistill.stages.reporting.provenance import Source, provenance
from retrodistill.stages.reporting.results import caution_of
from retrodistill.stages.reporting.unseen import unseen

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run

Row = Sequence[str | float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherAgreement:
    """How systems follow a teacher: a table, and its numbers."""

    columns: Sequence[str]
    rows: Sequence[Row]
    data: Any
    pairs: int
    """Pairs that the teacher and the system of the plot both scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanations:
    """How far students score by the words that a teacher scores by: a table, and its numbers."""

    teacher: str
    columns: Sequence[str]
    rows: Sequence[Row]
    data: Any


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """All that a report may speak of."""

    about: str
    """What the judgements are."""

    qrels: Qrels
    runs: "Mapping[str, Run]"
    """System -> run, the teacher's too."""

    evaluation: Mapping[str, Any]
    """`Evaluation.to_dict()`."""

    per_query: sections.PerQuery
    baseline: str
    system: str
    command: str
    teacher: str | None = None
    agreement: TeacherAgreement | None = None
    explanations: Explanations | None = None
    collection: "Collection | None" = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    sources: Sequence[Source] = ()
    """Runs, teacher, students and indexes."""

    limits: CaseLimits = field(default_factory=CaseLimits)
    seed: int = 0


def build_report(measured: ReportInputs) -> Report:
    """Return the report: each part only where there is something to say."""
    first = next(iter(measured.per_query.values()))
    metric = next(iter(first))
    judged = len(first[metric])
    systems, tie = len(measured.runs), measured.evaluation["settings"]["tie"]
    roles = {measured.baseline: "baseline"} if systems > 1 else {}
    roles |= {measured.teacher: "teacher"} if measured.teacher else {}
    parts = [sections.headline(measured.evaluation, queries=judged, roles=roles)]
    if measured.evaluation["tests"]:
        parts.append(sections.tests_section(measured.evaluation["tests"]))
    aside = unseen(measured.evaluation)
    if aside is not None:
        parts.append(aside)
    if systems > 1:
        parts.append(sections.deltas(measured.per_query, metric, measured.baseline, tie=tie))
    if measured.milliseconds:
        means = {one["name"]: one["metrics"][metric] for one in measured.evaluation["systems"]}
        parts.append(sections.cost(means, metric, measured.milliseconds))
    if measured.agreement is not None and measured.teacher is not None:
        parts.append(_fidelity(measured, measured.agreement, measured.teacher))
    if measured.explanations is not None:
        found = measured.explanations
        parts.append(
            sections.explanations(found.columns, found.rows, teacher=found.teacher, data=found.data)
        )
    manifests = {
        kind: {s.name: s.manifest for s in measured.sources if s.role == kind and s.manifest}
        for kind in ("student", "index")
    }
    parts += [
        part
        for part in (sections.training(manifests["student"]), sections.tuning(manifests["index"]))
        if part is not None
    ]
    parts += _queries(measured, metric, judged)
    parts.append(provenance(measured.sources, measured.command))
    names = f"{systems} systems" if systems > 1 else next(iter(measured.runs))
    return Report(
        title=f"{names} on {measured.about}",
        about=f"{judged:,} judged queries{caution_of(measured.evaluation)}. "
        f"Plots and lists of queries follow {metric}.",
        evaluation=measured.evaluation,
        sections=parts,
    )


def write_report(report: Report, out: Path, *, overwrite: bool = False) -> None:
    """Write report.html, report.md, report.tex and report.json, all or none.

    Raises:
        ConfigError: `out` exists already and `overwrite` is not set.

    """
    texts = {
        "report.html": as_html(report),
        "report.md": as_markdown(report),
        "report.tex": as_latex(report),
        "report.json": json_text(report.to_dict()),
    }
    with new_folder(out, overwrite=overwrite) as folder:
        for name, text in texts.items():
            (folder / name).write_bytes(text.encode(errors="replace"))


def _fidelity(measured: ReportInputs, agreement: TeacherAgreement, teacher: str) -> Section:
    relevant, other = score_points(
        measured.runs[measured.system],
        measured.runs[teacher],
        measured.qrels,
        seed=measured.seed,
    )
    return sections.fidelity_section(
        agreement.columns,
        agreement.rows,
        teacher=teacher,
        system=measured.system,
        relevant=relevant,
        other=other,
        pairs=agreement.pairs,
        data=agreement.data,
    )


def _queries(measured: ReportInputs, metric: str, judged: int) -> list[Section]:
    """Return the part of queries that lost against the teacher, else against the baseline."""
    against = measured.teacher or measured.baseline
    if against == measured.system or not measured.limits.queries:
        return []
    cases, worse = worst_cases(
        {name: own[metric] for name, own in measured.per_query.items()},
        measured.runs,
        measured.qrels,
        metric=metric,
        systems=(against, measured.system),
        collection=measured.collection,
        limits=measured.limits,
        tie=measured.evaluation["settings"]["tie"],
    )
    others = [name for name in measured.runs if name not in (against, measured.system)]
    if not cases:
        return []
    return [sections.worst_queries(cases, worse=worse, judged=judged, others=others)]
