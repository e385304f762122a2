"""The results of a benchmark: as a table, and as JSON."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodistill.base.config import as_dict
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.stages.evaluation import Evaluation
from retrodistill.stages.pipelines.benchmark.plan import BenchmarkPlan

FILE = "benchmark.json"
MILLION = 1e6

Row = Sequence[str | float | None]
CellKey = tuple[str, str]
"""A dataset's and a system's name."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The cells and evaluations of a plan."""

    plan: BenchmarkPlan
    settings: Mapping[str, Any]
    """How cells were measured: `k`, `timed`, and the machine's `price_per_hour`."""

    cells: Mapping[CellKey, Manifest]
    evaluations: Mapping[str, Evaluation]
    """BenchmarkDataset -> the systems whose cells are finished, measured and tested."""

    failures: Mapping[CellKey, str]

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """System -> metric -> mean over datasets, of systems that are finished on all of them."""
        means = {}
        for name in self.plan.systems:
            rows = [
                self.evaluations[dataset].systems[name]
                for dataset in self.plan.datasets
                if (dataset, name) in self.cells
            ]
            if len(rows) == len(self.plan.datasets):
                means[name] = {
                    metric: sum(row[metric] for row in rows) / len(rows) for metric in rows[0]
                }
        return means

    def price(self, cell: Manifest) -> dict[str, float]:
        """Return the price of embedding a million documents, and of a million single queries."""
        hour = self.settings["price_per_hour"]
        if not hour:
            return {}
        seconds = {
            "million_docs": MILLION / cell.details["docs_per_second"],
            "million_queries": MILLION * cell.details["latency_ms"]["mean"] / 1e3,
        }
        return {name: hour * value / 3600 for name, value in seconds.items()}

    def columns(self, dataset: str) -> list[str]:
        """Return the column heads of a dataset's table."""
        metrics = next(iter(self.evaluations[dataset].systems.values()))
        costs = ["docs/s", "p50 ms", "p95 ms", "p99 ms", "index MB"]
        prices = ["price 1M docs", "price 1M queries"]
        return ["system", *metrics, *costs, *(prices if self.settings["price_per_hour"] else [])]

    def rows(self, dataset: str) -> list[Row]:
        """Return a row for each system that is finished on a dataset: quality, then cost."""
        rows: list[Row] = []
        for name, means in self.evaluations[dataset].systems.items():
            cell = self.cells[dataset, name]
            times = cell.details["latency_ms"]
            rows.append(
                (
                    name,
                    *(f"{value:.4f}" for value in means.values()),
                    f"{cell.details['docs_per_second']:,.0f}",
                    *(f"{times[percentile]:.2f}" for percentile in ("p50", "p95", "p99")),
                    f"{cell.details['index_bytes'] / MILLION:.2f}",
                    *(f"{value:.2f}" for value in self.price(cell).values()),
                )
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the form of benchmark.json."""
        cells = [
            {
                "dataset": dataset,
                "system": name,
                "folder": f"cells/{dataset}/{name}",
                "fingerprint": cell.fingerprint,
                "inputs": dict(cell.inputs),
                "versions": dict(cell.versions),
                **cell.details,
                **({"price": self.price(cell)} if self.price(cell) else {}),
            }
            for (dataset, name), cell in self.cells.items()
        ]
        datasets = {
            name: {
                **as_dict(dataset),
                "evaluation": self.evaluations[name].to_dict()
                if name in self.evaluations
                else None,
            }
            for name, dataset in self.plan.datasets.items()
        }
        return {
            "settings": dict(self.settings),
            "datasets": datasets,
            "systems": {name: as_dict(settings) for name, settings in self.plan.systems.items()},
            "cells": cells,
            "means": self.means,
            "failures": [
                {"dataset": dataset, "system": name, "error": error}
                for (dataset, name), error in self.failures.items()
            ],
        }


def latencies(
    path: Path, systems: Collection[str], *, data: str | None, split: str
) -> dict[str, float]:
    """Return system -> median milliseconds a query, from benchmark.json or its folder.

    Of several datasets it is that of the collection `data` and its split; `data` may be None where
    there is only one.

    Raises:
        ConfigError: the benchmark has no such dataset, more than one, or none of the systems.
        DataError: the file is missing or malformed.

    """
    file = path / FILE if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        datasets = [
            name
            for name, dataset in content["datasets"].items()
            if data is None or (dataset["data"], dataset["split"]) == (data, split)
        ]
        cells = [cell for cell in content["cells"] if cell["dataset"] in datasets]
        times = {cell["system"]: float(cell["latency_ms"]["p50"]) for cell in cells}
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is not what `benchmark` writes ({type(error).__name__}: {error}). "
            "Give its --out, or benchmark.json."
        ) from None
    if len(datasets) != 1:
        available = ", ".join(
            f"{dataset['data']} ({dataset['split']})" for dataset in content["datasets"].values()
        )
        requested = "one dataset" if data is None else f"{data} ({split}) once"
        raise ConfigError(f"{file} must hold {requested}, but it holds: {available}. Give --data.")
    if not times.keys() & set(systems):
        raise ConfigError(
            f"{file} has times of {', '.join(times) or 'nothing'}, but the systems here are called "
            f"{', '.join(systems)}. Give its runs: --run runs/{datasets[0]}/SYSTEM."
        )
    return {name: times[name] for name in systems if name in times}
