"""`/healthz`, `/readyz`, `/metrics` and `/reload`: for whoever runs the server."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from retrodistill.base.types import Doc
from retrodistill.stages.serving.guard import check_key
from retrodistill.stages.serving.service import Service, json_response

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from retrodistill.stages.serving.batching import Outcome
    from retrodistill.stages.serving.served import Served

DEADLINE = 5.0
"""Seconds within which every model has to read a word."""


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["operation"])
    probing: asyncio.Future[dict[str, Any]] | None = None

    @router.get("/healthz", summary="Whether the process answers")
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @router.get("/readyz", summary="Whether every model answers")
    async def readyz() -> Response:
        nonlocal probing
        if probing is None or probing.done():  # else: whoever asks meanwhile gets the same answer
            probing = asyncio.ensure_future(_readiness(service))
        content = await asyncio.shield(probing)
        return json_response(content, 200 if content["status"] == "ready" else 503)

    @router.get("/metrics", summary="Counters, for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @router.post("/reload", summary="Open all folders again")
    async def reload(request: Request) -> Response:
        check_key(request.scope, service.keys)
        await asyncio.to_thread(service.reload)
        return json_response({"status": "reloaded"})

    return router


async def _readiness(service: Service) -> dict[str, Any]:
    """Return the answer of `/readyz`."""
    with service.serving() as served:
        probes = _probes(served)
        states = await asyncio.gather(*map(_state, probes.values()))
        dead = [worker.name for worker in served.workers if not worker.alive]
    ready = not dead and set(states) <= {"ready"}
    models = dict(zip(probes, states, strict=True))
    return {"status": "ready" if ready else "not ready", "models": models, "dead": dead}


def _probes(served: "Served") -> "dict[str, Callable[[], Future[Outcome]]]":
    """Return the models that are to read a word, each with the call that lets it."""
    probes: dict[str, Callable[[], Future[Outcome]]] = {
        name: partial(model.texts.submit, ["ready"], "query", urgent=True)
        for name, model in served.models.items()
    }
    if (reranker := served.reranker) is not None and reranker.local:
        inputs = reranker.engine.inputs("ready", [Doc("", "", "ready")])
        probes[reranker.name] = partial(reranker.pairs.submit, inputs, urgent=True)
    return probes


async def _state(probe: "Callable[[], Future[Outcome]]") -> str:
    """Return `ready`, or why not: a real pass through the model decides, within the deadline.

    It is first in the queue, so that a busy server is a ready one.
    """
    try:
        await asyncio.wait_for(asyncio.wrap_future(probe()), DEADLINE)
    except TimeoutError:
        return f"no answer within {DEADLINE:g} s"
    except Exception as error:
        return str(error)
    return "ready"
