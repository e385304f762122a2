"""The process that serves: its socket, its signals, and what it logs."""

import logging
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from retrodistill.base.command import Terminated
from retrodistill.base.config import ServeConfig
from retrodistill.base.config.serve import LOOPBACK
from retrodistill.base.errors import ConfigError, RetrodistillError
from retrodistill.base.logging import log
from retrodistill.stages.serving.app import create_app
from retrodistill.stages.serving.errors import RequestError
from retrodistill.stages.serving.guard import check_access, read_keys
from retrodistill.stages.serving.service import Service

BACKLOG = 2048
GRACE = 30
"""Seconds for requests that run when the process is asked to end."""


def run_server(config: ServeConfig) -> None:
    """Serve until the process is asked to end.

    Raises:
        ConfigError: the address cannot be used, or what is to be served cannot.
        DataError: a folder is damaged.

    """
    keys = read_keys(config.api_key_file)
    check_access(config.host, keys, no_key=config.no_key)
    sock = bound(config.host, config.port)  # before the models are loaded
    try:
        app = create_app(
            config, keys=keys, local_only=config.host in LOOPBACK, origins=config.allow_origin
        )
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                backlog=BACKLOG,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        _reload_at_sighup(app.state.service)
        log.info(f"serving at {address(sock)} (Ctrl-C stops).")
        with suppress(KeyboardInterrupt, Terminated):  # uvicorn has answered what ran by then
            server.run(sockets=[sock])
        log.info("stopped.")
    finally:
        sock.close()


def bound(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: the address is in use or not this machine's.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"--host {host} --port {port} cannot be listened at: {error.strerror}. Give another, "
            "or --port 0 for any free port."
        ) from error
    return sock


def address(sock: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _reload_at_sighup(service: Service) -> None:
    """Open all folders again at SIGHUP, in a thread: what is served is served meanwhile."""
    from threading import Thread

    def reload() -> None:
        try:
            service.reload()
        except (RetrodistillError, RequestError) as error:
            log.error(f"not reloaded, and served as before: {error}")
        except Exception as error:
            log.error(f"not reloaded, and served as before: {error}", exc_info=error)

    def begin(number: int, frame: FrameType | None) -> Any:
        Thread(target=reload, name="reload", daemon=True).start()

    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, begin)
