"""The memory that a call takes, in bytes: what Python, NumPy and Arrow hold at its height."""

import tracemalloc
from collections.abc import Callable

import pyarrow as pa

POOLS: list[pa.MemoryPool] = []
"""Kept: what was allocated from a pool may outlive the call."""


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most that was held at once beyond what was held before the call."""
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
