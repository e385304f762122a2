"""Cells: a system on a dataset, a step of the benchmark's pipeline.

The artifacts lie beside each other, each a folder of its own kind: `runs/DATASET/SYSTEM`,
`indexes/DATASET/SYSTEM`, `scores/DATASET/TEACHER`, and last `cells/DATASET/SYSTEM`, the record of
the step: a manifest with what was measured and the fingerprints of all the others.
"""

from pathlib import Path
from typing import Any

from retrodistill.base.config import as_dict
from retrodistill.base.manifest import Manifest, digest
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.stages.evaluation.efficiency import percentiles, times_ms
from retrodistill.stages.pipelines.benchmark.first_stages import DenseSystem, LexicalSystem
from retrodistill.stages.pipelines.benchmark.plan import DenseSettings, LexicalSettings
from retrodistill.stages.pipelines.benchmark.second_stage import RerankedSystem
from retrodistill.stages.pipelines.benchmark.systems import System, Workspace
from retrodistill.stages.pipelines.steps import Pipeline, Step
from retrodistill.stages.reporting.environment import machine

KIND = "cell"
WARM_UP = 10
"""Queries that are asked before any is timed."""


def measure_cell(
    name: str, workspace: Workspace, *, timed: int, overwrite: bool = False
) -> Manifest:
    """Return the cell of a system, measured unless it is up to date.

    Raises:
        RetrodistillError: what the system needs is missing or malformed.

    """
    pipeline = Pipeline(workspace.out, kind=KIND)
    return pipeline.ensure(cell_step(name, workspace, timed=timed), overwrite=overwrite)


def cell_step(name: str, workspace: Workspace, *, timed: int) -> Step:
    """Return the step that writes a system's index and run, and measures what they cost."""
    system = system_on(name, workspace)
    outputs: dict[str, Path] = {"run": workspace.folder("runs", name)}
    if system.index_folder is not None:
        outputs = {"index": system.index_folder, **outputs}
    shared = {
        "collection": workspace.collection.fingerprint,
        "queries": digest(*(query.id for query in workspace.queries)),
    }
    return Step(
        name=f"{workspace.name}/{name}",
        config={
            "system": as_dict(workspace.systems[name]),
            "dataset": as_dict(workspace.dataset),
            "k": workspace.k,
            "timed": timed,
        },
        inputs=lambda: {**shared, **system.inputs()},
        outputs=outputs,
        make=lambda: _measure(system, timed),
    )


def system_on(name: str, workspace: Workspace) -> System[Any]:
    """Return a system of the plan on the workspace's dataset."""
    settings = workspace.systems[name]
    if isinstance(settings, LexicalSettings):
        return LexicalSystem(name, workspace, settings)
    if isinstance(settings, DenseSettings):
        return DenseSystem(name, workspace, settings)
    return RerankedSystem(name, workspace, settings, system_on(settings.of, workspace))


def _measure(system: System[Any], timed: int) -> dict[str, Any]:
    """Write the run of a system, and return its costs."""
    workspace = system.workspace
    result = system.make()
    result.run.write(
        workspace.folder("runs", system.name),
        inputs={"collection": workspace.collection.fingerprint, **result.inputs},
        config=result.config,
        details={"split": workspace.dataset.split},
        overwrite=True,
    )
    rows = spread_rows(len(workspace.queries), timed)
    sample = [workspace.queries[row] for row in rows]
    times = times_ms(system.answer(), sample, warm=WARM_UP)
    return {
        "docs_per_second": result.docs_per_second,
        "index_bytes": result.index_bytes,
        "latency_ms": percentiles(times),
        "timed": len(times),
        "machine": machine(),
    }
