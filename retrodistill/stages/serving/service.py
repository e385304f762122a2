"""What the routes share: what is served now, how to look names up, and how to answer."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any, TypeVar

import orjson
from starlette.responses import Response

from retrodistill.base.config.serve import ServeSettings
from retrodistill.base.logging import log
from retrodistill.stages.serving.batching import Admission
from retrodistill.stages.serving.errors import RequestError, unknown_name
from retrodistill.stages.serving.guard import Keys
from retrodistill.stages.serving.metrics import Metrics
from retrodistill.stages.serving.served import Opener, Served, ServedIndex

Result = TypeVar("Result")

CLOSING = 10.0
"""Seconds for batches that run when the server ends."""


class Service:
    """One application: its settings, keys, counters, and what it serves at the moment."""

    def __init__(self, settings: ServeSettings, keys: Keys) -> None:
        self.settings = settings
        self.keys = keys
        self.admission = Admission(settings.queue)
        self.metrics = Metrics(self.admission)
        self._reloading = Lock()
        self._opener = Opener(settings, self.admission, self.metrics)
        self._served = self._opener.all()

    @contextmanager
    def serving(self) -> Iterator[Served]:
        """Keep what is served now open within the block."""
        served = self._served
        while not served.enter():
            if served is self._served:
                raise RequestError(503, "the server is closing.", code="closing", retry_after=1)
            served = self._served  # a reload has just put another in its place
        try:
            yield served
        finally:
            served.leave()

    def reload(self) -> None:
        """Open all folders again, and serve them instead; requests that run end with the old ones.

        Raises:
            RequestError: 409, another reload is running.
            RetrodistillError: a folder cannot be opened; it is served as it was.

        """
        if not self._reloading.acquire(blocking=False):
            raise RequestError(409, "a reload is running already.", code="reloading")
        try:
            for fresh in self._opener.again(self._served):
                former, self._served = self._served, fresh
                former.close(kept=fresh)
            log.info(f"reloaded: {', '.join(self._served.models) or 'no model'}.")
        finally:
            self._reloading.release()

    def close(self) -> None:
        """Stop all threads, when their work is done."""
        self._served.close()

    async def closed(self) -> None:
        """Close, while requests that were cancelled end; a model that hangs is not waited for."""
        thread = Thread(target=self.close, name="close", daemon=True)
        thread.start()
        until = time.monotonic() + CLOSING
        while thread.is_alive() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if thread.is_alive():
            log.warning(f"a model has not ended within {CLOSING:g} s: it is left.")


def index_of(served: Served, name: str | None) -> ServedIndex:
    """Return the index that a request names, or the first.

    Raises:
        RequestError: 404, there is none of this name.

    """
    if name is None and served.indexes:
        return next(iter(served.indexes.values()))
    if name not in served.indexes:
        if not served.indexes:
            raise RequestError(404, "no index is served: start with --index FOLDER.")
        raise unknown_name(
            "index", str(name), [*served.indexes], param="index", code="index_not_found"
        )
    return served.indexes[name]


async def in_thread(served: Served, call: Callable[..., Result], *arguments: Any) -> Result:
    """Return what a call returns that would hold up other requests."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(served.calls, call, *arguments)


def json_response(content: Any, status: int = 200) -> Response:
    """Return a JSON answer; arrays of numbers are written as they are."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")
