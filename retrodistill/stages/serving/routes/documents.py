"""`/documents`: read, put and delete the documents of an index while it is served."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import numpy as np
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from retrodistill.base.logging import log
from retrodistill.stages.serving.errors import RequestError
from retrodistill.stages.serving.guard import check_key
from retrodistill.stages.serving.live.documents import Document, check_documents
from retrodistill.stages.serving.live.index import Change, IndexClosedError
from retrodistill.stages.serving.routes.answers import StoredDocument, WasDeleted, WasPut, answer
from retrodistill.stages.serving.routes.requests import DeleteRequest, PutRequest
from retrodistill.stages.serving.served import Served, ServedIndex
from retrodistill.stages.serving.service import Service, in_thread, index_of, json_response

PAUSE = 0.05
"""Seconds between looks for an index that is opened again."""


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["documents"])

    def with_key(request: Request) -> None:
        check_key(request.scope, service.keys)

    key = [Depends(with_key)]

    @router.get("/documents/{id:path}", summary="A document", responses=answer(StoredDocument))
    async def document(id: str, index: str | None = None) -> Response:
        with service.serving() as served:
            chosen = index_of(served, index)
            doc = await in_thread(served, chosen.live.doc, id)
            if doc is None:
                raise RequestError(404, f"{chosen.name} has no document {id!r}.", param="id")
            return json_response(
                {"id": doc.id, "title": doc.title, "text": doc.text, "fields": dict(doc.fields)}
            )

    @router.put(
        "/documents",
        summary="Add documents, or replace them",
        dependencies=key,
        responses=answer(WasPut),
    )
    async def put(body: PutRequest, index: str | None = None) -> Response:
        docs = [Document(doc.id, doc.title, doc.text, doc.fields) for doc in body.documents]
        check_documents(docs)
        name, change = await _change(service, index, partial(_put, docs))
        return json_response(
            {
                "index": name,
                "added": change.added,
                "replaced": change.replaced,
                "documents": change.documents,
            }
        )

    @router.delete(
        "/documents",
        summary="Delete documents",
        dependencies=key,
        responses=answer(WasDeleted),
    )
    async def delete(body: DeleteRequest, index: str | None = None) -> Response:
        name, change = await _change(service, index, partial(_delete, body.ids))
        return json_response(
            {
                "index": name,
                "deleted": change.deleted,
                "unknown": change.unknown,
                "documents": change.documents,
            }
        )

    return router


async def _put(docs: Sequence[Document], served: Served, index: ServedIndex) -> Change:
    assert index.model is not None
    texts = [doc.full_text for doc in docs]
    outcome = await asyncio.wrap_future(index.model.embed(texts, "document"))
    vectors = index.shortened(np.stack(outcome.results))
    return await in_thread(served, index.live.put, docs, vectors)


async def _delete(ids: Sequence[str], served: Served, index: ServedIndex) -> Change:
    return await in_thread(served, index.live.delete, ids)


async def _change(
    service: Service,
    name: str | None,
    changed: Callable[[Served, ServedIndex], Awaitable[Change]],
) -> tuple[str, Change]:
    """Return the name of an index and its change; it waits for an index that is opened again.

    Raises:
        RequestError: 403, its documents may not be changed.

    """
    while True:
        with service.serving() as served:
            chosen = _writable(served, name)
            try:
                return chosen.name, await changed(served, chosen)
            except IndexClosedError:
                log.info(f"{chosen.name} is opened again: a change waits for it.")
        await asyncio.sleep(PAUSE)


def _writable(served: Served, name: str | None) -> ServedIndex:
    """Return an index whose documents may be changed.

    Raises:
        RequestError: 403, they may not.

    """
    index = index_of(served, name)
    if index.live.refusal:
        message = f"the documents of {index.name} cannot be changed: {index.live.refusal}"
        raise RequestError(403, message, code="not_writable")
    return index
