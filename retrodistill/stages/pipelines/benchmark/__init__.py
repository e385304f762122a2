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
from retrodistill.stages.evaluation import METRICS, evaluate_with_unseen
from retrodistill.stages.evaluation.seen import named_training
from retrodistill.stages.evaluation.significance import check_baseline
from retrodistill.stages.pipelines.benchmark.cells import measured
from retrodistill.stages.pipelines.benchmark.page import write_pages
from retrodistill.stages.pipelines.benchmark.plan import Plan, Reranked, read_plan
from retrodistill.stages.pipelines.benchmark.results import Benchmark, latencies
from retrodistill.stages.pipelines.benchmark.work import Place

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

__all__ = ["Benchmark", "Plan", "latencies", "read_plan", "run_benchmark"]


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

    `plan` is a YAML file, or what such a file holds. Cells that are finished are not measured
    again, unless `overwrite` is set; quality is measured from their runs each time, by
    `evaluate_runs` with the settings `measuring`. Each system finds `k` documents for every query;
    `timed` queries are timed, one after the other. A cell that fails is told, and named in
    `failures`; the others are measured. `trained_on` and `near_double` are those of
    `seen_in_training`; a split counts for the datasets that have it.

    Raises:
        ConfigError: the plan or a setting is not in order.

    """
    least = {"k": (k, 1), "timed": (timed, 1), "price_per_hour": (price_per_hour or 0, 0)}
    for name, (value, low) in least.items():
        if not value >= low:
            raise ConfigError(f"{name} must be at least {low}, but it is {value}.")
    found = read_plan(plan)
    parse_metrics(measuring.get("metrics", METRICS))
    baseline = measuring.get("baseline")
    if baseline is not None:
        check_baseline(baseline, [*found.systems])
    cells: dict[tuple[str, str], Manifest] = {}
    failures: dict[tuple[str, str], str] = {}
    evaluations = {}
    places: dict[str, Place] = {}
    for dataset in found.datasets:
        try:
            places[dataset] = _place(found, dataset, Path(out), k)
        except RetrodistillError as error:
            failures |= {(dataset, system): str(error) for system in found.systems}
            log.info(f"dataset {dataset}: {error}")
    _check_trained_on(trained_on, [place.collection for place in places.values()])
    for dataset, place in places.items():
        for name, system in found.systems.items():
            try:
                if isinstance(system, Reranked) and (dataset, system.of) in failures:
                    raise DataError(f"its first stage {system.of!r} has failed.")
                cells[dataset, name] = measured(name, place, timed=timed, overwrite=overwrite)
            except RetrodistillError as error:
                failures[dataset, name] = str(error)
                log.info(f"cell {name} on {dataset}: {error}")
        runs = {
            name: Run.read(place.folder("runs", name))
            for name in found.systems
            if (dataset, name) in cells
        }
        if runs:
            kept = measuring | {"baseline": baseline if baseline in runs else None}
            qrels = place.collection.qrels(place.dataset.split)
            known = [n for n in trained_on if n in place.collection.splits or Path(n).is_dir()]
            settings = EvaluationSettings(trained_on=tuple(known), near_double=near_double, **kept)
            evaluations[dataset] = evaluate_with_unseen(place.collection, qrels, runs, settings)
    order = [(dataset, system) for dataset in found.datasets for system in found.systems]
    benchmark = Benchmark(
        plan=found,
        settings={"k": k, "timed": timed, "price_per_hour": price_per_hour},
        cells=cells,
        evaluations=evaluations,
        failures={cell: failures[cell] for cell in order if cell in failures},
    )
    write_pages(benchmark, Path(out))
    return benchmark


def _check_trained_on(names: Sequence[str], collections: "Sequence[Collection]") -> None:
    """Raise ConfigError unless each name is a folder with a record, or a split of a dataset."""
    for name in names:
        owners: list[Collection | None] = [own for own in collections if name in own.splits]
        named_training([name], next(iter([*owners, *collections, None])))


def _place(plan: Plan, name: str, out: Path, k: int) -> Place:
    """Return a dataset with its collection, after a look that there are queries to ask."""
    from retrodistill.data.datasets import load_collection

    dataset = plan.datasets[name]
    collection = load_collection(dataset.data)
    place = Place(out, name, dataset, collection, plan.systems, k)
    if not place.queries or not len(collection.docs):
        raise DataError(
            f"{collection.name} has no queries in split {dataset.split!r}, or no documents."
        )
    return place
