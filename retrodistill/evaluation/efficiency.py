"""What a system costs: documents a second, milliseconds a query, megabytes."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def per_second(work: Callable[[Sequence[str]], object], items: Sequence[str]) -> float:
    """Return items done a second by `work`, in one call after a small first one."""
    work(items[:4])
    started = time.perf_counter()
    work(items)
    return len(items) / (time.perf_counter() - started)


def median_ms(work: Callable[[str], object], items: Sequence[str]) -> float:
    """Return the median time of `work` on one item, in milliseconds, after a first call."""
    work(items[0])
    times = []
    for item in items:
        started = time.perf_counter()
        work(item)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def weights_mb(folder: Path) -> float:
    """Return the size of a model folder's weights, in megabytes."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors")) / 1e6
