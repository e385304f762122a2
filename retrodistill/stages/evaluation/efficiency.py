"""What a system costs: documents a second, milliseconds a query, megabytes."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

SHARES = (50, 95, 99)
"""Percentiles of the time of a query."""


def per_second(work: Callable[[Sequence[Item]], object], items: Sequence[Item]) -> float:
    """Return items done a second by `work`, in one call after a small first one."""
    work(items[:4])
    started = time.perf_counter()
    work(items)
    return len(items) / (time.perf_counter() - started)


def median_ms(work: Callable[[Item], object], items: Sequence[Item]) -> float:
    """Return the median time of `work` on one item, in milliseconds, after a first call."""
    return statistics.median(times_ms(work, items))


def times_ms(
    work: Callable[[Item], object], items: Sequence[Item], *, warm: int = 1
) -> list[float]:
    """Return the time of `work` on each item, in milliseconds, after the first `warm` of them."""
    for item in items[:warm]:
        work(item)
    times = []
    for item in items:
        started = time.perf_counter()
        work(item)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and the mean; between two values it is interpolated linearly.

    Of n values, p99 is the highest one or near it where n is below some hundred.
    """
    found = {f"p{share}": float(np.percentile(values, share)) for share in SHARES}
    return found | {"mean": statistics.fmean(values)}


def weights_mb(folder: Path) -> float:
    """Return the size of a model folder's weights, in megabytes."""
    return files_bytes(folder, "*.safetensors") / 1e6


def files_bytes(folder: Path, pattern: str = "*") -> int:
    """Return the size of a folder's files, subfolders included."""
    return sum(path.stat().st_size for path in Path(folder).rglob(pattern) if path.is_file())
