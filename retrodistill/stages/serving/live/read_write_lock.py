"""A lock for many readers or one writer, for threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, local


class ReadWriteLock:
    """Many threads read at a time, or one writes.

    A writer waits for those who read, and whoever wants to read then waits for the writer: writers
    are never starved. A thread that reads may read within it.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._writers = 0  # at work or waiting
        self._writing = False
        self._depth = local()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock for reading, while others may read too."""
        depth = getattr(self._depth, "value", 0)
        if depth == 0:
            with self._changed:
                while self._writers:
                    self._changed.wait()
                self._readers += 1
        self._depth.value = depth + 1
        try:
            yield
        finally:
            self._depth.value = depth
            if depth == 0:
                with self._changed:
                    self._readers -= 1
                    if not self._readers:
                        self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone. A thread that reads would wait for itself: it must not ask."""
        assert not getattr(self._depth, "value", 0), "a reader cannot become the writer"
        with self._changed:
            self._writers += 1
            try:
                while self._readers or self._writing:
                    self._changed.wait()
            except BaseException:
                self._writers -= 1
                self._changed.notify_all()
                raise
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._writers -= 1
                self._changed.notify_all()
