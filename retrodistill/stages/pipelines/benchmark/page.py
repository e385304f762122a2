"""The page of a benchmark: quality by dataset, then each dataset with its costs and tests."""

import json
from pathlib import Path

from retrodistill.base.config import as_dict
from retrodistill.base.files import write_atomically
from retrodistill.stages.pipelines.benchmark.results import FILE, Benchmark
from retrodistill.stages.reporting import sections
from retrodistill.stages.reporting.content import Block, Cell, Code, Report, Section, Table, Text
from retrodistill.stages.reporting.html import as_html
from retrodistill.stages.reporting.markdown import as_markdown
from retrodistill.stages.reporting.provenance import SHORT
from retrodistill.stages.reporting.tables import number_in
from retrodistill.stages.reporting.unseen import unseen


def write_pages(benchmark: Benchmark, out: Path) -> None:
    """Write benchmark.json, benchmark.md and benchmark.html."""
    report = page(benchmark)
    texts = {
        FILE: json.dumps(benchmark.to_dict(), indent=2) + "\n",
        "benchmark.md": as_markdown(report),
        "benchmark.html": as_html(report),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode(errors="replace"))


def page(benchmark: Benchmark) -> Report:
    """Return the results as a report, for its renderers."""
    plan = benchmark.plan
    several = len(plan.datasets) > 1 and benchmark.evaluations
    report_sections = [_overview(benchmark)] if several else []
    report_sections += [
        _dataset(benchmark, number, name) for number, name in enumerate(benchmark.evaluations)
    ]
    if benchmark.failures:
        lines = [
            f"{name} on {dataset}: {error}" for (dataset, name), error in benchmark.failures.items()
        ]
        blocks: list[Block] = [Text(text=line) for line in lines]
        report_sections.append(Section(key="failures", title="Not measured", blocks=blocks))
    report_sections.append(_provenance(benchmark))
    machines = dict.fromkeys(_machine(cell.details["machine"]) for cell in benchmark.cells.values())
    warning = "Cells come from several machines or numbers of threads, whose times do not compare: "
    return Report(
        title=f"Systems on {', '.join(plan.datasets)}",
        about=(warning if len(machines) > 1 else "") + "; ".join(machines),
        evaluation={},
        sections=report_sections,
    )


def _overview(benchmark: Benchmark) -> Section:
    """Return each metric by dataset, and its mean over datasets."""
    means, evaluations = benchmark.means, benchmark.evaluations
    metrics = next(iter(next(iter(evaluations.values())).systems.values()))
    blocks: list[Block] = []
    for number, metric in enumerate(metrics):
        values = {
            name: [
                *(
                    evaluation.systems.get(name, {}).get(metric)
                    for evaluation in evaluations.values()
                ),
                means.get(name, {}).get(metric),
            ]
            for name in benchmark.plan.systems
        }
        best = [
            max((value for value in column if value is not None), default=None)
            for column in zip(*values.values(), strict=True)
        ]
        rows = [
            [
                Cell(text=name),
                *(
                    Cell(
                        text="-" if value is None else f"{value:.4f}",
                        number=value,
                        best=value is not None and value == highest,
                    )
                    for value, highest in zip(row, best, strict=True)
                ),
            ]
            for name, row in values.items()
        ]
        columns = ("system", *evaluations, "mean")
        blocks.append(Table(caption=metric, columns=columns, rows=rows, folded=number > 0))
    return Section(key="overview", title="All datasets", blocks=blocks)


def _dataset(benchmark: Benchmark, number: int, name: str) -> Section:
    """Return a dataset's quality with intervals, costs, quality by cost, and tests."""
    evaluation = benchmark.evaluations[name].to_dict()
    metrics = list(evaluation["systems"][0]["metrics"])
    quality = {system["name"]: system["metrics"][metrics[0]] for system in evaluation["systems"]}
    times = {
        system: benchmark.cells[name, system].details["latency_ms"]["p50"] for system in quality
    }
    unseen_section = unseen(evaluation)
    blocks = [
        *sections.headline(evaluation, queries=evaluation["settings"]["queries"]).blocks,
        _costs(benchmark, name, n_metrics=len(metrics)),
        *(sections.cost(quality, metrics[0], times).blocks if len(quality) > 1 else ()),
        *sections.tables_of_tests(evaluation["tests"]),
        *(unseen_section.blocks if unseen_section is not None else ()),
    ]
    return Section(key=f"dataset-{number}", title=name, blocks=blocks)


def _costs(benchmark: Benchmark, name: str, *, n_metrics: int) -> Table:
    """Return the table of a dataset without its columns of quality."""
    columns, settings = benchmark.columns(name), benchmark.settings
    rows = [
        [
            Cell(text=str(cell), number=number_in(cell) if column else None)
            for column, cell in enumerate((row[0], *row[1 + n_metrics :]))
        ]
        for row in benchmark.rows(name)
    ]
    price = settings["price_per_hour"]
    return Table(
        caption="Costs",
        columns=[columns[0], *columns[1 + n_metrics :]],
        rows=rows,
        note=f"Documents are encoded or indexed in batches; {settings['timed']:,} queries at most "
        f"were asked one after the other for {settings['k']:,} documents each, encoding included. "
        "A reranked system has the documents/s and the index of its first stage."
        + (f" Prices are for a machine of {price:g} an hour, never idle." if price else ""),
    )


def _provenance(benchmark: Benchmark) -> Section:
    """Return the inputs of each cell, and the plan."""
    import yaml

    rows = [
        [
            Cell(text=text)
            for text in (
                name,
                dataset,
                cell.fingerprint[:SHORT],
                ", ".join(f"{role} {value[:SHORT]}" for role, value in cell.inputs.items()),
            )
        ]
        for (dataset, name), cell in benchmark.cells.items()
    ]
    table = Table(
        caption="Cells, each a folder cells/DATASET/SYSTEM with its manifest.json",
        columns=("system", "dataset", "fingerprint", "made from"),
        rows=rows,
    )
    plan = {
        "datasets": {name: as_dict(dataset) for name, dataset in benchmark.plan.datasets.items()},
        "systems": {name: as_dict(system) for name, system in benchmark.plan.systems.items()},
    }
    versions = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in cell.versions.items())
        for cell in benchmark.cells.values()
    )
    text = yaml.safe_dump(plan, sort_keys=False, allow_unicode=True).rstrip()
    return Section(
        key="provenance",
        title="Provenance",
        blocks=[
            table,
            *(Text(text=f"Made with {line}") for line in versions),
            Code(title="The plan", text=text),
        ],
    )


def _machine(properties: dict[str, str | int]) -> str:
    gpu = f", {properties['gpu']}" if "gpu" in properties else ""
    return f"{properties['cpu']}, {properties['cores']} cores, {properties['threads']} threads{gpu}"
