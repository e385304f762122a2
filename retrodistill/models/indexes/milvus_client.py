"""The way to a Milvus: its address, its client, and its errors."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from retrodistill.base.errors import ConfigError, MissingExtra

TOKEN = "MILVUS_TOKEN"
"""Environment variable of what opens a server: user:password, or a key."""
WAIT = 20.0
"""Seconds that a server has to answer the first time."""
LOGGERS = ("pymilvus", "milvus_lite", "grpc")
"""They write a traceback for each error that is raised as well."""


def address(uri: str) -> str:
    """Return the address of a server, or the absolute path of a file.

    Raises:
        ConfigError: it is neither, or it holds a password.

    """
    if not uri:
        raise ConfigError(
            "an index of kind 'milvus' needs an address: milvus:FILE.db or milvus:http://HOST:19530."
        )
    if "://" in uri:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https", "tcp") or not parts.hostname:
            raise ConfigError(
                f"{parts.scheme}://... is not an address of Milvus: http://HOST:19530."
            )
        if parts.username is not None or parts.password is not None or parts.query:
            raise ConfigError(
                "the address of Milvus must hold no password, for it is kept in files. Set "
                f"{TOKEN} to user:password or to a key, and give http://HOST:19530."
            )
        return uri
    path = Path(uri).expanduser()
    if path.suffix != ".db":
        raise ConfigError(f"a file of Milvus Lite ends in .db, but it is {uri!r}.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} does not exist, so {path.name} cannot be created there.")
    return str(path.absolute())


def connect(uri: str) -> Any:
    """Return a client of Milvus.

    Raises:
        ConfigError: nobody answers, or not to us.
        MissingExtra: a package is not installed.

    """
    with quiet() as failures:
        pymilvus = import_module("pymilvus")
        if "://" not in uri:
            try:
                import_module("milvus_lite")
            except ImportError as error:
                raise _missing("milvus-lite", error) from error
        try:
            return pymilvus.MilvusClient(uri, token=os.environ.get(TOKEN, ""), timeout=WAIT)
        except failures as error:
            remedy = (
                f"Is the server there, and does {TOKEN} hold what opens it?"
                if "://" in uri
                else "Has another process opened the file? Only one at a time can."
            )
            raise ConfigError(
                f"Milvus at {uri} cannot be opened ({reason(error)}). {remedy}"
            ) from error


class _Silence:
    """Loggers that stay silent while any thread is in a block of `quiet`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks = 0
        self._levels: dict[str, int] = {}

    def enter(self) -> None:
        """Silence the loggers at the first of nested or simultaneous blocks."""
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._levels = {name: logging.getLogger(name).level for name in LOGGERS}
                for name in LOGGERS:
                    logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def leave(self) -> None:
        """Give the loggers their levels back at the end of the last block."""
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                for name, level in self._levels.items():
                    logging.getLogger(name).setLevel(level)


_SILENCE = _Silence()


@contextmanager
def quiet() -> Iterator[tuple[type[Exception], ...]]:
    """Keep Milvus from writing tracebacks in the block; give the errors that it raises."""
    try:
        failures = (import_module("pymilvus").MilvusException, import_module("grpc").RpcError)
    except ImportError as error:
        raise _missing("pymilvus", error) from error
    _SILENCE.enter()
    try:
        yield failures
    finally:
        _SILENCE.leave()


def _missing(package: str, error: ImportError) -> MissingExtra:
    return MissingExtra(
        f"--index milvus needs the package {package} ({error}): pip install 'retrodistill[milvus]'."
    )


def reason(error: Exception) -> str:
    """Return the first line of what an error says."""
    message = str(getattr(error, "message", "") or error).strip().rstrip(".")
    return message.splitlines()[0] if message else type(error).__name__
