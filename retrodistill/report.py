"""Write a report on systems: tables, tests, plots, and the queries that they lost.

    python -m retrodistill.report --data beir:scifact --split test \\
        --run runs/bm25 --run runs/kl --out report
    python -m retrodistill.report --data beir:scifact --run runs/bm25 --run runs/kl \\
        --teacher scores/test --student students/kl --index indexes/kl --latency kl=12.5

The folder holds report.html (one file, which needs no network), report.md, report.tex and
report.json. Each further input adds a section.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodistill.base.command import run
from retrodistill.base.config import ReportConfig

if TYPE_CHECKING:
    from retrodistill.stages.evaluation.systems import Systems
    from retrodistill.stages.reporting.report import Explanations, TeacherAgreement


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a user's mistake)."""
    return run(ReportConfig, report, verb="report", about=__doc__, words=words)


def report(config: ReportConfig) -> None:
    """Measure, print the table and the tests, write the files, and print their folder."""
    from retrodistill.stages import preflight
    from retrodistill.stages.evaluation.systems import read_systems
    from retrodistill.stages.pipelines.benchmark import latencies
    from retrodistill.stages.reporting.cases import CaseLimits
    from retrodistill.stages.reporting.commands import command_of_settings
    from retrodistill.stages.reporting.provenance import folders, source
    from retrodistill.stages.reporting.report import ReportInputs, build_report, write_report
    from retrodistill.stages.reporting.results import known_system, print_results, system_names

    preflight.report(config)
    artifacts = folders("student", config.student) + folders("index", config.index)
    # the systems, the teacher's run among them
    paths = system_names([*config.run, *([config.teacher] if config.teacher else [])])
    systems = read_systems(config, paths)
    runs = systems.runs
    students = [name for name, path in paths.items() if path in config.run]
    teacher = next((name for name, path in paths.items() if path == config.teacher), None)
    system = known_system(config.system or students[-1], runs)
    # what a query costs
    milliseconds = {known_system(name, runs): ms for name, ms in config.milliseconds().items()}
    if config.benchmark is not None:
        timed = latencies(config.benchmark, [*runs], data=config.data, split=config.split)
        milliseconds = timed | milliseconds
    evaluation = systems.evaluate()
    print_results(evaluation.to_dict())
    inputs = [
        source(
            "teacher" if name == teacher else "run", name, path, fingerprint=runs[name].fingerprint
        )
        for name, path in paths.items()
    ]
    page = build_report(
        ReportInputs(
            about=systems.about,
            qrels=systems.qrels,
            collection=systems.collection,
            runs=runs,
            evaluation=evaluation.to_dict(),
            per_query=evaluation.per_query,
            baseline=config.baseline or students[0],
            system=system,
            teacher=teacher,
            agreement=_agreement(systems, teacher, system) if teacher else None,
            explanations=_explanations(systems, config) if config.explain else None,
            milliseconds=milliseconds,
            sources=inputs + artifacts,
            command=command_of_settings("report", config),
            limits=CaseLimits(queries=config.queries, depth=config.depth),
            seed=config.seed,
        )
    )
    write_report(page, config.out, overwrite=config.overwrite)
    print(config.out)


def _agreement(systems: "Systems", teacher: str, system: str) -> "TeacherAgreement | None":
    """Return how closely all other systems follow the teacher, over the judged queries."""
    from retrodistill.stages.evaluation.fidelity import fidelity, fidelity_table
    from retrodistill.stages.reporting.report import TeacherAgreement

    if system == teacher:
        return None
    runs = {name: run.select(systems.qrels) for name, run in systems.runs.items()}
    by_system = {
        name: fidelity(run, runs[teacher]) for name, run in runs.items() if name != teacher
    }
    columns, rows = fidelity_table(by_system)
    data = {name: result.to_dict() for name, result in by_system.items()}
    return TeacherAgreement(columns=columns, rows=rows, data=data, pairs=data[system]["shared"])


def _explanations(systems: "Systems", config: ReportConfig) -> "Explanations":
    """Return how far students' explanations agree with those of their teacher."""
    from retrodistill.stages.evaluation.explanations import compare_explanations, explanation_table
    from retrodistill.stages.reporting.report import Explanations

    assert systems.collection is not None
    assert config.explain_teacher is not None
    found = compare_explanations(systems.collection, systems.qrels, config)
    columns, rows = explanation_table(found)
    data = {name: each.to_dict(per_pair=True) for name, each in found.items()}
    return Explanations(teacher=config.explain_teacher, columns=columns, rows=rows, data=data)


if __name__ == "__main__":
    sys.exit(main())
