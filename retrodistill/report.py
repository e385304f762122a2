"""Write a page about systems: tables, tests, plots, and the queries that they lost.

    python -m retrodistill.report --data beir:scifact --split test \\
        --run runs/bm25 --run runs/kl --out report
    python -m retrodistill.report --data beir:scifact --run runs/bm25 --run runs/kl \\
        --teacher scores/test --student students/kl --index indexes/kl --latency kl=12.5

The folder holds report.html (one file, which needs no network), report.md, report.tex and
report.json. Each further input adds a part.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrodistill.base.command import run
from retrodistill.base.config import ReportConfig

if TYPE_CHECKING:
    from retrodistill.data.store.runs import Run
    from retrodistill.stages.reporting.report import Agreement


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ReportConfig, report, verb="report", about=__doc__, words=words)


def report(config: ReportConfig) -> None:
    """Measure, print the table and the tests, write the files, and print their folder."""
    from retrodistill.data.datasets import load_collection
    from retrodistill.data.qrels import read_qrels
    from retrodistill.data.store.runs import Run
    from retrodistill.stages import preflight
    from retrodistill.stages.evaluation import evaluate_with_unseen
    from retrodistill.stages.pipelines.benchmark import latencies
    from retrodistill.stages.reporting.commands import command_of_settings
    from retrodistill.stages.reporting.provenance import folders, source
    from retrodistill.stages.reporting.report import Measured, build_report, write_report
    from retrodistill.stages.reporting.results import known_system, print_results, system_names

    preflight.report(config)
    made = folders("student", config.student) + folders("index", config.index)
    collection = load_collection(config.data) if config.data is not None else None
    qrels = collection.qrels(config.split) if collection else read_qrels(config.qrels or Path())
    paths = system_names([*config.run, *([config.teacher] if config.teacher else [])])
    runs = {name: Run.read(path) for name, path in paths.items()}
    systems = [name for name, path in paths.items() if path in config.run]
    teacher = next((name for name, path in paths.items() if path == config.teacher), None)
    system = known_system(config.system or systems[-1], runs)
    milliseconds = {known_system(name, runs): ms for name, ms in config.milliseconds().items()}
    if config.benchmark is not None:
        timed = latencies(config.benchmark, [*runs], data=config.data, split=config.split)
        milliseconds = timed | milliseconds
    measuring = config.learned() | config.measuring()
    evaluation = evaluate_with_unseen(collection, qrels, runs, **measuring)
    print_results(evaluation.to_dict(), queries=evaluation.settings["queries"])
    inputs = [
        source(
            "teacher" if name == teacher else "run", name, path, fingerprint=runs[name].fingerprint
        )
        for name, path in paths.items()
    ]
    page = build_report(
        Measured(
            about=f"{collection.name} ({config.split})" if collection else str(config.qrels),
            qrels=qrels,
            collection=collection,
            runs=runs,
            evaluation=evaluation.to_dict(),
            per_query=evaluation.per_query,
            baseline=config.baseline or systems[0],
            system=system,
            teacher=teacher,
            agreement=_agreement(runs, teacher, system, list(qrels)) if teacher else None,
            milliseconds=milliseconds,
            sources=inputs + made,
            command=command_of_settings("report", config),
            queries=config.queries,
            depth=config.depth,
            seed=config.seed,
        )
    )
    write_report(page, config.out, overwrite=config.overwrite)
    print(config.out)


def _agreement(
    runs: "Mapping[str, Run]", teacher: str, system: str, judged: Sequence[str]
) -> "Agreement | None":
    """Return how all other systems follow the teacher, over the judged queries."""
    from retrodistill.stages.evaluation.fidelity import fidelity, fidelity_table
    from retrodistill.stages.reporting.report import Agreement

    if system == teacher:
        return None
    best = runs[teacher].select(judged)
    found = {
        name: fidelity(run.select(judged), best) for name, run in runs.items() if name != teacher
    }
    columns, rows = fidelity_table(found)
    data = {name: own.to_dict() for name, own in found.items()}
    return Agreement(columns=columns, rows=rows, data=data, pairs=data[system]["shared"])


if __name__ == "__main__":
    sys.exit(main())
