"""Benchmarking: systems by datasets, each cell measured once and traceable to its artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config.evaluate import EvaluationSettings
from retrodistill.base.errors import ConfigError, DataError, RetrodistillError
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest
from retrodistill.data.rankings.metrics import parse_metrics
from retrodistill.data.rankings.unseen import THRESHOLD
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation import METRICS, Evaluation, evaluate_with_unseen
from retrodistill.stages.evaluation.seen import named_training
from retrodistill.stages.evaluation.significance import check_baseline
from retrodistill.stages.pipelines.benchmark.cells import measure_cell
from retrodistill.stages.pipelines.benchmark.page import write_pages
from retrodistill.stages.pipelines.benchmark.plan import BenchmarkPlan, RerankedSettings, read_plan
from retrodistill.stages.pipelines.benchmark.results import Benchmark, CellKey, latencies
from retrodistill.stages.pipelines.benchmark.systems import Workspace

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

__all__ = ["Benchmark", "BenchmarkPlan", "latencies", "read_plan", "run_benchmark"]


def run_benchmark(
    plan: Path | str | Mapping[str, Any],
    out: Path | str,
    *,
    k: int = 100,
    timed: int = 100,
    price_per_hour: float | None = None,
    overwrite: bool = False,
    trained_on: Sequence[str] = (),
    near_double: float = THRESHOLD,
    **measuring: Any,
) -> Benchmark:
    """Measure each system of a plan on each dataset, write the tables to `out`, and return them.

    `plan` is a YAML file, or what such a file holds. Cells that are up to date are not measured
    again, unless `overwrite` is set; quality is measured from their runs each time, by
    `evaluate_runs` with the settings `measuring`. Each system finds `k` documents for every query;
    `timed` queries are timed, one after the other. A cell that fails is logged, and named in
    `failures`; the others are measured. `trained_on` and `near_double` are those of
    `seen_in_training`; a split counts for the datasets that have it.

    Raises:
        ConfigError: the plan is malformed, or a setting is unknown or out of range.

    """
    lowest = {"k": (k, 1), "timed": (timed, 1), "price_per_hour": (price_per_hour or 0, 0)}
    for name, (value, low) in lowest.items():
        if not value >= low:
            raise ConfigError(f"{name} must be at least {low}, but it is {value}.")
    benchmark_plan = read_plan(plan)
    parse_metrics(measuring.get("metrics", METRICS))
    if measuring.get("baseline") is not None:
        check_baseline(measuring["baseline"], [*benchmark_plan.systems])
    workspaces, failures = _workspaces(benchmark_plan, Path(out), k)
    _check_trained_on(trained_on, [workspace.collection for workspace in workspaces.values()])
    cells: dict[CellKey, Manifest] = {}
    evaluations = {}
    for dataset, workspace in workspaces.items():
        measured, failed = _cells(workspace, timed=timed, overwrite=overwrite)
        cells |= {(dataset, system): cell for system, cell in measured.items()}
        failures |= {(dataset, system): reason for system, reason in failed.items()}
        if measured:
            evaluations[dataset] = _evaluation(
                workspace, [*measured], trained_on, near_double=near_double, **measuring
            )
    order = [
        (dataset, name) for dataset in benchmark_plan.datasets for name in benchmark_plan.systems
    ]
    benchmark = Benchmark(
        plan=benchmark_plan,
        settings={"k": k, "timed": timed, "price_per_hour": price_per_hour},
        cells=cells,
        evaluations=evaluations,
        failures={key: failures[key] for key in order if key in failures},
    )
    write_pages(benchmark, Path(out))
    return benchmark


def _workspaces(
    plan: BenchmarkPlan, out: Path, k: int
) -> tuple[dict[str, Workspace], dict[CellKey, str]]:
    """Return the datasets that can be measured on, and why a dataset cannot, for each cell."""
    workspaces: dict[str, Workspace] = {}
    failures: dict[CellKey, str] = {}
    for name in plan.datasets:
        try:
            workspaces[name] = _workspace(plan, name, out, k)
        except RetrodistillError as error:
            failures |= {(name, system): str(error) for system in plan.systems}
            log.warning(f"dataset {name}: {error}")
    return workspaces, failures


def _workspace(plan: BenchmarkPlan, name: str, out: Path, k: int) -> Workspace:
    """Return a dataset with its collection, which has documents, and queries in its split."""
    from retrodistill.data.datasets import load_collection

    dataset = plan.datasets[name]
    collection = load_collection(dataset.data)
    workspace = Workspace(out, name, dataset, collection, plan.systems, k)
    if not workspace.queries or not len(collection.docs):
        raise DataError(
            f"{collection.name} has no queries in split {dataset.split!r}, or no documents."
        )
    return workspace


def _cells(
    workspace: Workspace, *, timed: int, overwrite: bool
) -> tuple[dict[str, Manifest], dict[str, str]]:
    """Return the cells of a dataset by system, and why a system could not be measured."""
    cells: dict[str, Manifest] = {}
    failures: dict[str, str] = {}
    for name, settings in workspace.systems.items():
        try:
            if isinstance(settings, RerankedSettings) and settings.of in failures:
                raise DataError(f"its first stage {settings.of!r} has failed.")
            cells[name] = measure_cell(name, workspace, timed=timed, overwrite=overwrite)
        except RetrodistillError as error:
            failures[name] = str(error)
            log.warning(f"cell {name} on {workspace.name}: {error}")
    return cells, failures


def _evaluation(
    workspace: Workspace,
    systems: Sequence[str],
    trained_on: Sequence[str],
    *,
    baseline: str | None = None,
    **measuring: Any,
) -> Evaluation:
    """Return the evaluation of the systems whose cells of a dataset are finished."""
    collection = workspace.collection
    runs = {name: Run.read(workspace.folder("runs", name)) for name in systems}
    settings = EvaluationSettings(
        trained_on=tuple(
            name for name in trained_on if name in collection.splits or Path(name).is_dir()
        ),
        baseline=baseline if baseline in runs else None,
        **measuring,
    )
    split = workspace.dataset.split
    evaluation = evaluate_with_unseen(collection, collection.qrels(split), runs, settings)
    return evaluation.with_caution(collection.made_by_machine(split))


def _check_trained_on(names: Sequence[str], collections: "Sequence[Collection]") -> None:
    """Raise ConfigError unless each name is a folder with a record, or a split of a dataset."""
    for name in names:
        owners: list[Collection | None] = [
            collection for collection in collections if name in collection.splits
        ]
        named_training([name], next(iter([*owners, *collections, None])))
