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
    """Return what was found, for the renderers of reports."""
    plan = benchmark.plan
    parts = [_overview(benchmark)] if len(plan.datasets) > 1 and benchmark.evaluations else []
    parts += [_dataset(benchmark, place, name) for place, name in enumerate(benchmark.evaluations)]
    if benchmark.failures:
        lines = [
            f"{name} on {dataset}: {error}" for (dataset, name), error in benchmark.failures.items()
        ]
        blocks: list[Block] = [Text(text=line) for line in lines]
        parts.append(Section(key="failures", title="Not measured", blocks=blocks))
    parts.append(_provenance(benchmark))
    machines = dict.fromkeys(_machine(cell.details["machine"]) for cell in benchmark.cells.values())
    several = "Cells come from several machines or numbers of threads, whose times do not compare: "
    return Report(
        title=f"Systems on {', '.join(plan.datasets)}",
        about=(several if len(machines) > 1 else "") + "; ".join(machines),
        evaluation={},
        sections=parts,
    )


def _overview(benchmark: Benchmark) -> Section:
    """Return each metric by dataset, and its mean over datasets."""
    means, found = benchmark.means, benchmark.evaluations
    first = next(iter(next(iter(found.values())).systems.values()))
    blocks: list[Block] = []
    for place, metric in enumerate(first):
        values = {
            name: [
                *(own.systems.get(name, {}).get(metric) for own in found.values()),
                means.get(name, {}).get(metric),
            ]
            for name in benchmark.plan.systems
        }
        best = [
            max((own for own in column if own is not None), default=None)
            for column in zip(*values.values(), strict=True)
        ]
        rows = [
            [
                Cell(text=name),
                *(
                    Cell(
                        text="-" if own is None else f"{own:.4f}",
                        number=own,
                        best=own is not None and own == top,
                    )
                    for own, top in zip(row, best, strict=True)
                ),
            ]
            for name, row in values.items()
        ]
        columns = ("system", *found, "mean")
        blocks.append(Table(caption=metric, columns=columns, rows=rows, folded=place > 0))
    return Section(key="overview", title="All datasets", blocks=blocks)


def _dataset(benchmark: Benchmark, place: int, name: str) -> Section:
    """Return a dataset's quality with intervals, costs, the one against the other, and tests."""
    found = benchmark.evaluations[name].to_dict()
    metrics = list(found["systems"][0]["metrics"])
    columns = benchmark.columns(name)
    costs = [
        [
            Cell(text=str(cell), number=number_in(cell) if column else None)
            for column, cell in enumerate((row[0], *row[1 + len(metrics) :]))
        ]
        for row in benchmark.rows(name)
    ]
    settings = benchmark.settings
    table = Table(
        caption="Costs",
        columns=[columns[0], *columns[1 + len(metrics) :]],
        rows=costs,
        note=f"Documents are encoded or indexed in batches; {settings['timed']:,} queries at most "
        f"were asked one after the other for {settings['k']:,} documents each, encoding included. "
        "A reranked system has the documents/s and the index of its first stage."
        + (
            f" Prices are for a machine of {settings['price_per_hour']:g} an hour, never idle."
            if settings["price_per_hour"]
            else ""
        ),
    )
    first = {one["name"]: one["metrics"][metrics[0]] for one in found["systems"]}
    aside = unseen(found)
    times = {one: benchmark.cells[name, one].details["latency_ms"]["p50"] for one in first}
    blocks = [
        *sections.headline(found, queries=found["settings"]["queries"]).blocks,
        table,
        *(sections.cost(first, metrics[0], times).blocks if len(first) > 1 else ()),
        *sections.tables_of_tests(found["tests"]),
        *(aside.blocks if aside is not None else ()),
    ]
    return Section(key=f"dataset-{place}", title=name, blocks=blocks)


def _provenance(benchmark: Benchmark) -> Section:
    """Return what each cell was made from, and the plan."""
    import yaml

    rows = [
        [
            Cell(text=text)
            for text in (
                name,
                dataset,
                cell.fingerprint[:SHORT],
                ", ".join(f"{role} {own[:SHORT]}" for role, own in cell.inputs.items()),
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
        "datasets": {name: as_dict(own) for name, own in benchmark.plan.datasets.items()},
        "systems": {name: as_dict(own) for name, own in benchmark.plan.systems.items()},
    }
    versions = dict.fromkeys(
        ", ".join(f"{name} {own}" for name, own in cell.versions.items())
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


def _machine(found: dict[str, str | int]) -> str:
    gpu = f", {found['gpu']}" if "gpu" in found else ""
    return f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads{gpu}"
