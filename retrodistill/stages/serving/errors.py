"""Errors in the form of OpenAI: `{"error": {message, type, param, code}}`."""

from typing import Any

from retrodistill.base.errors import ConfigError, DataError, RetrodistillError, did_you_mean
from retrodistill.base.logging import log
from retrodistill.stages.serving.batching import InputError, OverloadedError, WorkerDeadError
from retrodistill.stages.serving.live.index import IndexClosedError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}


class RequestError(Exception):
    """What a client is answered instead of a result."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def content(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {
            "error": {
                "message": _writable(self.message),
                "type": TYPES.get(self.status, "server_error"),
                "param": None if self.param is None else _writable(self.param),
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after is not None:
            headers["Retry-After"] = f"{self.retry_after:.0f}"
        return headers


ANSWERED = (RequestError, RetrodistillError, InputError, OverloadedError, WorkerDeadError)
"""Exceptions that are expected, each with an answer of its own."""


def unknown_name(noun: str, name: str, names: list[str], *, param: str, code: str) -> RequestError:
    """Return the answer to a name that is not served."""
    served = ", ".join(names) or "none"
    message = f"unknown {noun} {name!r}.{did_you_mean(name, names)} Served: {served}."
    return RequestError(404, message, param=param, code=code)


def answer_to(error: Exception, request: str) -> RequestError:
    """Return what a client is answered at any exception; faults of the server are logged."""
    answer = as_request_error(error)
    if answer is None or answer.status == 500:
        log.error(f"{request}: {error}", exc_info=error)
    return answer or RequestError(500, "the server failed; its log says why.")


def _writable(text: str) -> str:
    """Return a text that may repeat what a client sent, as UTF-8 can write it."""
    return text.encode("utf-8", "replace").decode()


def as_request_error(error: BaseException) -> RequestError | None:
    """Return what a client is answered at an exception; None: it is a fault of the server."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, InputError):
        inner = as_request_error(error.error)
        if inner is None or inner.status >= 500:
            return RequestError(500, f"input {error.position}: {error.error}", param="input")
        return inner
    if isinstance(error, OverloadedError):
        message = "the server has more to do than it may hold in its queue: try again later."
        return RequestError(429, message, code="overloaded", retry_after=error.retry_after)
    if isinstance(error, WorkerDeadError):
        return RequestError(503, str(error), code="worker_dead")
    if isinstance(error, TimeoutError):
        return RequestError(504, "no answer within the server's --timeout.", code="timeout")
    if isinstance(error, IndexClosedError):  # an index that was opened again meanwhile
        return RequestError(503, str(error), code="reloading", retry_after=1)
    if isinstance(error, (ConfigError, DataError)):
        return RequestError(400, str(error))
    if isinstance(error, RetrodistillError):
        return RequestError(500, str(error))
    return None
