"""JSON over HTTP to one server: in a few threads, retried, with errors that say what to do."""

import os
import random
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock, Semaphore
from typing import TYPE_CHECKING, Any, TypeVar

from retrodistill.base.endpoints import (
    LONGEST_WAIT,
    Pace,
    Stopped,
    api_key,
    asked_wait,
    without_key,
)
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.models.retrievers.endpoints.address import KEYS, Address

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 6
"""How often a request is sent at most."""

BACK_OFF = 0.5
"""Pause before the second try, in seconds, if the server names none; it doubles."""

CONNECT = 10.0
"""Longest time until a server accepts a connection, in seconds."""

AGAIN = (408, 409, 429)
"""HTTP errors, beside those of 500 and more, after which the same request may succeed."""

SLOW = (408, 504)
"""HTTP errors of a server that has not answered in time."""

SHOWN = 300
"""Characters of a server's message that an error repeats."""


class Refused(ConfigError):
    """An HTTP error that no second try changes."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _TryAgain(Exception):
    def __init__(self, reason: str, wait: float | None = None, *, is_slow: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.is_slow = is_slow


class Transport:
    """Requests to the server of one address; threads may share it.

    Before the server has answered once, a missing answer ends it at once: it is not up. Whenever
    an answer takes too long, one request less is in flight from then on.

    Raises:
        ConfigError: the key cannot be sent.

    """

    def __init__(self, address: Address) -> None:
        from requests import Session
        from requests.adapters import HTTPAdapter

        self._address = address
        self._variable, self._key = _key(address)
        self._session = Session()
        weakref.finalize(self, self._session.close)
        self._session.auth = self._authorize  # and not what a ~/.netrc holds for the host
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=address.concurrency))
        self._pace = Pace(0)
        self._slots = Semaphore(address.concurrency)
        self._in_flight = address.concurrency
        self._narrowing = Lock()
        self._answered = False
        self._jitter = random.Random(os.getpid())  # so that processes do not retry all at once

    def get(self, url: str) -> Any:
        """Return the JSON at an address.

        Raises:
            ConfigError: the server cannot be reached, or refuses (`Refused`).
            DataError: its answer is not JSON.

        """
        return self._request("GET", url, None)

    def post(self, body: dict[str, Any]) -> Any:
        """Return the JSON that the server answers to a body; errors are those of `get`."""
        return self._request("POST", self._address.url, body)

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return `work(item)` of each item, in order, done by a few threads; an error ends all."""
        if len(items) < 2:
            return [work(item) for item in items]

        def guarded(item: Item) -> Result:
            try:
                return work(item)
            except BaseException:
                self._pace.stop()
                raise

        self._pace.resume()
        with ThreadPoolExecutor(self._address.concurrency) as pool:
            futures = [pool.submit(guarded, item) for item in items]
            try:
                errors = [error for future in futures if (error := future.exception()) is not None]
            except BaseException:  # Ctrl-C
                self._pace.stop()
                raise
        self._pace.resume()
        if errors:
            raise min(errors, key=lambda error: isinstance(error, Stopped))
        return [future.result() for future in futures]

    def _request(self, method: str, url: str, body: dict[str, Any] | None) -> Any:
        for attempt in range(1, TRIES + 1):
            self._pace.wait()
            try:
                with self._slots:
                    return self._once(method, url, body)
            except _TryAgain as failure:
                if failure.is_slow:
                    self._narrow()
                if attempt == TRIES or (failure.wait or 0.0) > LONGEST_WAIT:
                    raise ConfigError(
                        f"{url}: gave up after {attempt} of {TRIES} tries: {failure}. Is the "
                        "server overloaded? Lower batch=, or raise its time limit."
                    ) from None
                if failure.wait is not None:
                    self._pace.hold(failure.wait)
                else:
                    self._pace.sleep(BACK_OFF * 2 ** (attempt - 1) * self._jitter.uniform(0.5, 1))
        raise AssertionError("the last try returns or raises")

    def _narrow(self) -> None:
        """Send one request less at a time, but for the last."""
        with self._narrowing:
            if self._in_flight > 1:
                self._in_flight -= 1
                self._slots.acquire()

    def _once(self, method: str, url: str, body: dict[str, Any] | None) -> Any:
        """Return the server's answer to one request."""
        from requests import RequestException, Timeout

        timeout = (CONNECT, self._address.timeout)
        try:
            response = self._session.request(
                method, url, json=body, timeout=timeout, allow_redirects=False
            )
        except Timeout:
            reason = f"no answer within {self._address.timeout:g} s"
            raise self._unanswered(url, reason, is_slow=True) from None
        except (RequestException, UnicodeError) as error:
            raise self._unanswered(url, without_key(_cause(error), self._key)) from None
        if not response.ok or response.is_redirect:
            raise self._error(url, response)
        self._answered = True
        try:
            return response.json()
        except ValueError:
            raise DataError(
                f"{url} answers with something that is not JSON: {self._message(response)!r}. Is "
                "it the address of an embeddings endpoint or of a search?"
            ) from None

    def _unanswered(self, url: str, reason: str, *, is_slow: bool = False) -> Exception:
        if self._answered:
            return _TryAgain(reason, is_slow=is_slow)
        return ConfigError(
            f"{url} cannot be reached: {reason}. Is the server up, and its address right? (The "
            "option timeout= sets how long to wait.)"
        )

    def _error(self, url: str, response: "Response") -> Exception:
        """Return the exception for an HTTP error: try again, or give up."""
        status, message = response.status_code, self._message(response)
        if status in AGAIN or status >= 500:
            wait = asked_wait(response.headers)
            return _TryAgain(f"HTTP {status}, {message}", wait, is_slow=status in SLOW)
        if response.is_redirect:
            message = f"it redirects to {response.headers['location']}; give that address"
        return Refused(f"{url}: HTTP {status}, {message}.{self._hint(status)}", status)

    def _hint(self, status: int) -> str:
        if status in (401, 403):
            sent = f"The key of {self._variable} was sent" if self._key else "No key was sent"
            return f" {sent}: set {self._address.key or ' or '.join(KEYS)} to the server's key."
        return {
            404: " Are the address and the option model= or index= right?",
            413: " Lower the option batch=, or shorten the texts.",
        }.get(status, "")

    def _message(self, response: "Response") -> str:
        """Return what the server says, without the key, on one line."""
        try:
            content = response.json()
        except ValueError:
            content = response.text
        for name in ("error", "message", "detail"):
            if isinstance(content, dict) and content.get(name):
                content = content[name]
        text = " ".join(without_key(str(content), self._key).split())
        return (text[:SHOWN] or response.reason).rstrip(".")

    def _authorize(self, request: "PreparedRequest") -> "PreparedRequest":
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def check_reachable(address: Address) -> None:
    """Raise ConfigError if no server answers at an address, whatever it answers."""
    with suppress(Refused, _TryAgain, DataError):
        Transport(address)._once("GET", address.url, None)


def _key(address: Address) -> tuple[str, str]:
    """Return the environment variable with the key, and the key; both empty if none is set."""
    for variable in [address.key] if address.key else KEYS:
        if key := api_key(variable):
            return variable, key
    if address.key:
        raise ConfigError(f"the option key={address.key}: this environment variable is not set.")
    return "", ""


def _cause(error: BaseException) -> str:
    """Return the innermost reason of a failed connection."""
    while error.__cause__ or error.__context__:
        inner = error.__cause__ or error.__context__
        assert inner is not None
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
