"""The HTTP application: routes behind a guard."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from retrodistill.base.config.search import parse_bytes
from retrodistill.base.config.serve import LOOPBACK, ServeSettings
from retrodistill.stages.serving.errors import ANSWERED, RequestError, answer_to
from retrodistill.stages.serving.guard import Guard, Keys
from retrodistill.stages.serving.page import page_routes
from retrodistill.stages.serving.routes import documents, embeddings, health, reranking, searching
from retrodistill.stages.serving.routes.openapi import document
from retrodistill.stages.serving.service import Service, json_response


def create_app(
    settings: ServeSettings,
    *,
    keys: Sequence[str] = (),
    local_only: bool = True,
    origins: Sequence[str] = (),
) -> FastAPI:
    """Return the application that serves indexes, models and a reranker; all are opened here.

    Clients must send one of the `keys`, if there are any. With `local_only`, only requests that
    address the server by a name of this machine are answered. `origins` are web pages that may
    call it from a browser. `app.state.service` reloads and closes what is served.

    Raises:
        ConfigError: a folder or model cannot be served.
        DataError: a folder is damaged.

    """
    service = Service(settings, Keys(keys))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.closed()

    app = FastAPI(
        title="retrodistill",
        version=version("retrodistill"),
        description="Embeddings, reranking and search of distilled students.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for module in (embeddings, reranking, searching, documents, health):
        app.include_router(module.routes(service))
    for route in page_routes():
        app.router.routes.append(route)
    _add_handlers(app)
    app.openapi = cache(partial(document, app, keys=bool(keys)))  # type: ignore[method-assign]
    app.add_middleware(
        Guard,
        keys=service.keys,
        metrics=service.metrics,
        largest_body=parse_bytes(settings.body),
        timeout=settings.timeout,
        hosts=LOOPBACK if local_only else None,
    )
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=[*origins], allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _add_handlers(app: FastAPI) -> None:
    """Let every error be answered in one form."""

    async def invalid(request: Request, error: Any) -> Response:
        detail = error.errors()[0]
        code = detail["type"]
        if code == "json_invalid":
            reason = f"{detail['ctx']['error']} at character {detail['loc'][1]}"
            message = f"the body is not JSON: {reason}."
            return _answer(RequestError(400, message, code=code))
        field = ".".join(map(str, detail["loc"][1:]))  # without `body` or `query`
        message = detail["msg"].removeprefix("Value error, ")
        text = f"{field}: {message}" if field else message
        return _answer(RequestError(400, text, param=field or None, code=code))

    async def http(request: Request, error: Any) -> Response:
        messages = {
            404: f"there is no {request.url.path}: /docs lists what there is.",
            405: f"{request.method} is not for {request.url.path}: /docs lists what is.",
        }
        message = messages.get(error.status_code, str(error.detail))
        response = _answer(RequestError(error.status_code, message))
        response.headers.update(error.headers or {})
        return response

    async def expected(request: Request, error: Exception) -> Response:
        return _answer(answer_to(error, f"{request.method} {request.url.path}"))

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in ANSWERED:  # the guard answers the others
        app.add_exception_handler(kind, expected)


def _answer(error: RequestError) -> Response:
    response = json_response(error.content(), error.status)
    response.headers.update(error.headers())
    return response
