"""What holds for one thread within a block, while other threads use the same model."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import dtype

    from retrodistill.models.inference.unpadded import Row


class ThreadState(local):
    """How models run in this thread now."""

    fused_dtype: "dtype | None" = None
    """Number type in which linear layers are one operation each; None: they are as they are."""

    row: "Row | None" = None
    """Real tokens of the batch whose padding layers do not read; None: they read it."""

    keeps_padding: bool = False
    """Whether layers read padding, whatever it costs."""


thread = ThreadState()


@contextmanager
def held(name: str, value: Any) -> Iterator[None]:
    """Set one field of this thread's state within the block."""
    before = getattr(thread, name)
    setattr(thread, name, value)
    try:
        yield
    finally:
        setattr(thread, name, before)
