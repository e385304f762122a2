"""Progress bars on stderr, shown on a terminal only, and durations as text."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from retrodistill.base.logging import log

_shown: ContextVar[Any] = ContextVar("_shown", default=None)
"""The display of the outermost bar: bars within it are further lines of it."""


@contextmanager
def bar(description: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show a progress bar; the block gets a function that moves it on by an amount.

    Nothing is shown where stderr is not a terminal, nor where messages below a warning are not
    logged (--quiet, and library calls without a handler).
    """
    outer = _shown.get()
    if outer is not None:
        inner = outer.add_task(description, total=total)
        try:
            yield lambda amount: outer.advance(inner, amount)
        finally:
            outer.remove_task(inner)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    hidden = not console.is_terminal or not log.isEnabledFor(logging.INFO)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=hidden) as progress:
        task = progress.add_task(description, total=total)
        _shown.set(progress)
        try:
            yield lambda amount: progress.advance(task, amount)
        finally:
            _shown.set(None)


def duration(seconds: float) -> str:
    """Return seconds as people say them: `45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
