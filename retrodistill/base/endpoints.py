"""What all that sends requests to a server shares: their pace, pauses, and keys."""

import json
import math
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from threading import Event, Lock
from urllib.parse import quote, urlsplit

from retrodistill.base.errors import ConfigError

SHORTEST_KEY = 8
"""Fewest characters of a secret key; local servers take shorter words."""

LONGEST_WAIT = 600.0
"""Longest pause, in seconds, that a server may request before it is given up."""


class Stopped(Exception):
    """Another request has failed for good: this one is not sent."""


class Pace:
    """Start times of requests: evenly spaced, and none while the endpoint asks for a pause.

    `per_minute` counts starts, of second tries too; 0 means no limit.
    """

    def __init__(self, per_minute: int) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = Lock()
        self._stop = Event()

    def wait(self) -> None:
        """Return when a request may start."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        self.sleep(start - now)

    def hold(self, seconds: float) -> None:
        """Let no request of any thread start for this time."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait this time.

        Raises:
            Stopped: `stop` was called, before or during the wait.

        """
        if self._stop.wait(seconds):
            raise Stopped

    def stop(self) -> None:
        """Wake all waiting threads, and let them give up."""
        self._stop.set()

    def resume(self) -> None:
        """Let requests start again after `stop`."""
        self._stop.clear()


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a response's `Retry-After` asks to wait, None if it asks for none."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    return None


def api_key(variable: str) -> str:
    """Return the key in an environment variable, without a trailing line end; empty if unset.

    Raises:
        ConfigError: it holds characters that no HTTP header can carry. It is not shown.

    """
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{variable} holds a space, a line end, or a character beyond ASCII, which a request "
            "cannot carry. Set it to the key alone."
        )
    return key


def without_key(text: str, key: str) -> str:
    """Return a server's message with the key removed, should the server repeat it."""
    if len(key) < SHORTEST_KEY:
        return text
    spellings = (key, repr(key)[1:-1], json.dumps(key)[1:-1], quote(key), quote(key, safe=""))
    for spelling in spellings:
        text = text.replace(spelling, "[key]")
    return text


def check_address(url: str, *, name: str, variable: str, example: str) -> None:
    """Check that a text is the address of a server and holds no secret, which is not shown.

    `name` is what errors call it, `variable` the environment variable that the key belongs in.

    Raises:
        ConfigError: it is not, or it does.

    """
    if any(sign in url for sign in "@?#"):
        secret = "a name or password" if "@" in url else "a query (?...)"
        raise ConfigError(
            f"{name} holds {secret} beside the address, and would be written to manifests. "
            f"Give the address alone, and set {variable}."
        )
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigError(f"{name} must be as {example}, but it is {url!r}.")
