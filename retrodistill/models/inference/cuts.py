"""Counts of what a model's length limit cuts, taken where texts are tokenised anyway."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.logging import log

Counts = NDArray[np.int64]


@dataclass(slots=True)
class Cut:
    """Texts of one limit: how many were read and cut, and the tokens of the cut ones."""

    texts: int = 0
    longer: int = 0
    tokens: int = 0
    lost: int = 0


Key = tuple[str, int]
"""What was cut (`documents`, `pairs`), and the limit in tokens."""

_counts: ContextVar[tuple[str, dict[Key, Cut]] | None] = ContextVar("_counts", default=None)


@contextmanager
def counted_cuts(noun: str) -> Iterator[dict[Key, Cut]]:
    """Count what is cut in the block, and log it at the end; `noun` says what single texts are.

    The counts are also given to the block. What other processes tokenise is not counted.
    """
    counts: dict[Key, Cut] = {}
    token = _counts.set((noun, counts))
    try:
        yield counts
    finally:
        _counts.reset(token)
    for (name, limit), cut in counts.items():
        if cut.longer:
            log.info(
                f"{cut.longer:,} of {cut.texts:,} {name} are longer than {limit:,} tokens: "
                f"{cut.lost / cut.tokens:.0%} of their tokens are cut."
            )


def note_cuts(whole: Counts, remaining: Counts, limit: int, *, noun: str | None = None) -> None:
    """Count texts by their tokens before and after a cut."""
    current = _counts.get()
    if current is None:
        return
    name, counts = current
    cut = counts.setdefault((noun or name, limit), Cut())
    longer = remaining < whole
    cut.texts += len(whole)
    cut.longer += int(longer.sum())
    cut.tokens += int(whole[longer].sum())
    cut.lost += int((whole - remaining)[longer].sum())


def note_overflow(batch: Any, limit: int) -> None:
    """Count the texts of what a fast tokenizer returned, which still holds what it cut off.

    Not for pairs: what is cut off one text comes back together with the other one.
    """
    if _counts.get() is None or not getattr(batch, "encodings", None):
        return
    whole, remaining = [], []
    for encoding in batch.encodings:
        overflow = encoding.overflowing
        special = sum(encoding.special_tokens_mask) if overflow else 0
        remaining.append(len(encoding) - special)
        whole.append(remaining[-1] + sum(len(piece) - special for piece in overflow))
    note_cuts(np.array(whole, np.int64), np.array(remaining, np.int64), limit)
