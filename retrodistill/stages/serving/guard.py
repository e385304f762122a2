"""What stands before every request: keys, hosts, the size of bodies, and what is counted."""

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from retrodistill.base.config.serve import LOOPBACK
from retrodistill.base.errors import ConfigError
from retrodistill.stages.serving.errors import RequestError, answer_to
from retrodistill.stages.serving.metrics import Metrics

VARIABLE = "RETRODISTILL_API_KEY"

SHORTEST = 16
"""Characters of a key at least."""

OPEN = ("/", "/healthz", "/readyz", "/docs", "/favicon.ico")
"""Paths that answer without a key; so does what is below /page/."""

LEFT = 499
"""Status under which a request is counted whose client left before the answer."""

Scope = dict[str, Any]


def read_keys(file: Path | None) -> list[str]:
    """Return the keys of a file, a line each, and of the environment.

    Raises:
        ConfigError: the file cannot be read or holds no key, or a key is too short to be one.

    """
    keys = []
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"--api-key-file {file} cannot be read: {error}.") from error
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ConfigError(f"--api-key-file {file} holds no key: write one a line.")
    if variable := os.environ.get(VARIABLE, "").strip():
        keys.append(variable)
    for position, key in enumerate(keys, start=1):
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"key {position} is not one: a key has at least {SHORTEST} ASCII characters and no "
                'space. Make one: python -c "import secrets; print(secrets.token_urlsafe(32))".'
            )
    return keys


def check_access(host: str, keys: Sequence[str], *, key: bool) -> None:
    """Refuse to be reached from other machines without a key, unless that is wanted.

    Raises:
        ConfigError: the host is not this machine alone, and there is no key.

    """
    if host not in LOOPBACK and not keys and key:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and no key is set: give "
            f"--api-key-file FILE or the environment variable {VARIABLE}, or --no-key if whoever "
            "reaches the port may ask."
        )


class Keys:
    """Keys that a client may send, compared in constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def fits(self, key: str) -> bool:
        """Tell whether a key is one of them; each is compared, whatever the others say."""
        digest = hashlib.sha256(key.encode()).digest()
        return sum(hmac.compare_digest(digest, own) for own in self._digests) > 0


def sent_key(scope: MutableMapping[str, Any]) -> str | None:
    """Return the key of a request's `Authorization: Bearer KEY` or `X-API-Key`."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    kind, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer":
        return key.strip()
    api_key = headers.get(b"x-api-key")
    return None if api_key is None else api_key.decode("latin-1").strip()


def check_key(scope: MutableMapping[str, Any], keys: Keys) -> None:
    """Raise RequestError unless a request has a key.

    Raises:
        RequestError: 401.

    """
    key = sent_key(scope)
    if key is None:
        message = "this needs a key: send the header `Authorization: Bearer KEY`."
        if not keys:
            message += f" The server has none: start it with --api-key-file FILE or {VARIABLE}."
        raise RequestError(401, message, code="missing_api_key")
    if not keys.fits(key):
        raise RequestError(401, "the key is not one of this server's.", code="invalid_api_key")


class Guard:
    """ASGI middleware: refuses what may not be asked, and counts what was.

    `hosts` are the names that a request may address the server by (None: any): a web page that
    makes its own name point here cannot read a server of this machine.
    """

    def __init__(
        self,
        app: Any,
        *,
        keys: Keys,
        metrics: Metrics,
        largest_body: int,
        timeout: float,
        hosts: Sequence[str] | None = None,
    ) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._largest_body = largest_body
        self._timeout = timeout
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 500
        started = False

        async def sending(message: dict[str, Any]) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
            await send(message)

        try:
            self._check(scope)
            body = await self._whole(receive)
            if body is None or not await self._answered(scope, body, receive, sending):
                status = LEFT
        except Exception as error:
            if started:
                raise
            await respond(sending, answer_to(error, f"{scope['method']} {scope['path']}"))
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._hosts is not None:
            host = _name_of(headers.get(b"host", b"").decode("latin-1"))
            if host not in self._hosts:
                message = (
                    f"this server answers as {', '.join(self._hosts)}, not as {host!r}: start it "
                    "with --host and a key for other names."
                )
                raise RequestError(421, message, code="wrong_host")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._largest_body:
            raise self._too_large()
        path = scope["path"]
        preflight = scope["method"] == "OPTIONS"
        if self._keys and not preflight and path not in OPEN and not path.startswith("/page/"):
            check_key(scope, self._keys)

    async def _whole(self, receive: Any) -> bytes | None:
        """Return the body, up to the limit, whatever its header says; None: the client has left.

        Raises:
            RequestError: 413, it is too large, or 408, it does not come to its end.

        """
        parts: list[bytes] = []
        more, size = True, 0
        try:
            async with asyncio.timeout(self._timeout):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    size += len(message.get("body", b""))
                    if size > self._largest_body:
                        raise self._too_large()
                    parts.append(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            message = "the body did not come within the server's --timeout."
            raise RequestError(408, message, code="timeout") from None
        return b"".join(parts)

    async def _answered(self, scope: Scope, body: bytes, receive: Any, send: Any) -> bool:
        """Let the application answer; stop it when the client leaves (False) or time is up.

        Raises:
            TimeoutError: time is up.

        """
        left = asyncio.ensure_future(_until_left(receive))
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receiving() -> Any:
            return messages.pop() if messages else await asyncio.shield(left)

        answer = asyncio.ensure_future(self._app(scope, receiving, send))
        try:
            await asyncio.wait(
                {answer, left}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if answer.done():
                await answer
                return True
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            if not left.done():
                raise TimeoutError
            return False
        finally:
            answer.cancel()
            left.cancel()

    def _too_large(self) -> RequestError:
        message = (
            f"the body is larger than {self._largest_body:,} bytes (--body): send less at once."
        )
        return RequestError(413, message, code="body_too_large")


async def _until_left(receive: Any) -> Any:
    """Return the message that says that the client has left."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message


async def respond(send: Any, error: RequestError) -> None:
    """Send an error."""
    body = orjson.dumps(error.content())
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **{name.lower(): value for name, value in error.headers().items()},
    }
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _name_of(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
