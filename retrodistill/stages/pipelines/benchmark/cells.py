"""Cells: a system on a dataset, measured once and kept whole or not at all.

The artifacts lie beside each other, each a folder of its own kind: `runs/DATASET/SYSTEM`,
`indexes/DATASET/SYSTEM`, `scores/DATASET/TEACHER`, and last `cells/DATASET/SYSTEM`, whose manifest
says what was measured and has the fingerprints of all the others.
"""

import json
from typing import Any

from retrodistill.base.config import as_dict
from retrodistill.base.errors import DataError
from retrodistill.base.files import new_folder
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest, digest
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation.efficiency import percentiles, times_ms
from retrodistill.stages.pipelines.benchmark.first_stages import DenseAtWork, WordsAtWork
from retrodistill.stages.pipelines.benchmark.plan import Dense, Words
from retrodistill.stages.pipelines.benchmark.second_stage import RerankedAtWork
from retrodistill.stages.pipelines.benchmark.work import AtWork, Place
from retrodistill.stages.reporting.environment import machine

KIND = "cell"
WARM = 10
"""Queries that are asked before any is timed."""


def measured(name: str, place: Place, *, timed: int, overwrite: bool = False) -> Manifest:
    """Return the cell of a system, measured unless it is finished with equal settings and inputs.

    Raises:
        RetrodistillError: what the system needs is not there, or not in order.

    """
    system = at_work(name, place)
    config = {
        "system": as_dict(place.systems[name]),
        "dataset": as_dict(place.dataset),
        "k": place.k,
        "timed": timed,
    }
    inputs = {
        "collection": place.collection.fingerprint,
        "queries": digest(*(query.id for query in place.queries)),
        **system.inputs(),
    }
    found = None if overwrite else finished(name, place, config, inputs)
    if found is not None:
        return found
    log.info(f"\n{name} on {place.name}")
    made = system.make()
    made.run.write(
        place.folder("runs", name),
        inputs={"collection": inputs["collection"], **made.inputs},
        config=made.config,
        details={"split": place.dataset.split},
        overwrite=True,
    )
    asked = [place.queries[row] for row in spread_rows(len(place.queries), timed)]
    times = times_ms(system.answer(), asked, warm=WARM)
    details = {
        "docs_per_second": made.docs_per_second,
        "index_bytes": made.index_bytes,
        "latency_ms": percentiles(times),
        "timed": len(times),
        "machine": machine(),
    }
    cell = Manifest(
        kind=KIND,
        fingerprint=digest(made.run.fingerprint, json.dumps([inputs, config, details])),
        inputs={**inputs, **made.inputs, "run": made.run.fingerprint},
        config=config,
        details=details,
    )
    with new_folder(place.folder("cells", name), overwrite=True) as folder:
        cell.write(folder)
    return cell


def at_work(name: str, place: Place) -> AtWork[Any]:
    """Return a system of the place's on its dataset."""
    system = place.systems[name]
    if isinstance(system, Words):
        return WordsAtWork(name, place, system)
    if isinstance(system, Dense):
        return DenseAtWork(name, place, system)
    return RerankedAtWork(name, place, system, at_work(system.of, place))


def finished(
    name: str, place: Place, config: dict[str, Any], inputs: dict[str, str]
) -> Manifest | None:
    """Return the cell on the disk if it was made of this, and its run and index are still there."""
    try:
        cell = Manifest.read(place.folder("cells", name), kind=KIND)
        if cell.config != config or not inputs.items() <= cell.inputs.items():
            return None
        left = {"run": Run.read(place.folder("runs", name)).fingerprint}
        if "index" in cell.inputs:
            left["index"] = Manifest.read(place.folder("indexes", name)).fingerprint
    except DataError:
        return None
    return cell if left.items() <= cell.inputs.items() else None
