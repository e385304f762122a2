"""`/search`, `/similar` and `/indexes`: the served pipeline from a query to documents."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.responses import Response

from retrodistill.stages.serving.errors import RequestError
from retrodistill.stages.serving.pipeline import (
    Found,
    Pipeline,
    Times,
    best_passages,
    found_by_sets,
    of_condition,
    reranker_of,
)
from retrodistill.stages.serving.routes.answers import Found as FoundAnswer
from retrodistill.stages.serving.routes.answers import FoundForEach, ServedIndexes, answer
from retrodistill.stages.serving.routes.attributes import described
from retrodistill.stages.serving.routes.requests import MAX_K, Condition, SearchRequest
from retrodistill.stages.serving.service import Service, in_thread, index_of, json_response

if TYPE_CHECKING:
    from retrodistill.data.filters import Expression
    from retrodistill.stages.serving.live.documents import Document
    from retrodistill.stages.serving.served import Served, ServedIndex

RERANKED = 50
"""Hits of the first stage that `rerank: true` orders."""


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["search"])

    @router.post(
        "/search",
        summary="Documents for queries or vectors",
        responses=answer(FoundAnswer | FoundForEach),
    )
    async def search(body: SearchRequest) -> Response:
        with service.serving() as served:
            return json_response(await _searched(served, body))

    @router.get(
        "/similar/{id:path}", summary="Documents near a document", responses=answer(FoundAnswer)
    )
    async def similar(
        id: str,
        index: str | None = None,
        k: int = Query(10, ge=1, le=MAX_K),
        where: Condition | None = None,
        fields: Annotated[list[str] | None, Query(max_length=256)] = None,
    ) -> Response:
        with service.serving() as served:
            chosen = index_of(served, index)
            await in_thread(served, _check_fields, chosen, fields or [])
            if chosen.model is None:
                raise RequestError(400, f"{chosen.name} holds no dense vectors: use /search.")
            vector = await in_thread(served, chosen.live.vector, id)
            if vector is None:
                raise _no_document(chosen, id)
            times = Times()
            condition = await _parsed(served, where)
            pipeline = Pipeline(served, chosen, "dense", condition, times)
            (nearest,) = await pipeline.nearest([vector], k + 1)
            neighbours = [pair for pair in zip(*nearest, strict=True) if pair[0] != id][:k]
            hits = await in_thread(served, _hits, chosen, [neighbours], fields or [])
            return json_response(
                {"index": chosen.name, "method": "dense", "hits": hits[0], "took_ms": times.ms()}
            )

    @router.get("/indexes", summary="What can be searched", responses=answer(ServedIndexes))
    async def indexes() -> Response:
        with service.serving() as served:
            entries = [
                await in_thread(served, described, index, served.reranker is not None)
                for index in served.indexes.values()
            ]
            default = entries[0]["name"] if entries else None
            return json_response(
                {"indexes": entries, "default": default, "key_needed": bool(service.keys)}
            )

    return router


async def _searched(served: "Served", body: SearchRequest) -> dict[str, Any]:
    """Return the answer to a search."""
    index = index_of(served, body.index)
    queries, vectors = _asked(index, body)
    method = _method(index, body, vectors is not None)
    if body.fields:
        await in_thread(served, _check_fields, index, body.fields)
    depth = max(body.k, _rerank_depth(served, index, body))
    times = Times()
    pipeline = Pipeline(served, index, method, await _parsed(served, body.where), times)
    if body.sets and body.by_document:
        raise RequestError(400, "by_document goes with no sets.", param="by_document")
    if body.sets:
        lists = [await found_by_sets(pipeline, query, depth) for query in queries]
    else:

        async def stage(depth: int) -> list[Found]:
            if vectors is not None:
                return await pipeline.nearest(list(vectors), depth)
            return await pipeline.texts(queries, depth)

        lists = await (best_passages(stage, depth) if body.by_document else stage(depth))
    if body.rerank:
        lists = [
            await pipeline.reranked(query, found, depth)
            for query, found in zip(queries, lists, strict=True)
        ]
    pairs = [list(zip(ids, scores.tolist(), strict=True))[: body.k] for ids, scores in lists]
    answers = await in_thread(served, _hits, index, pairs, body.fields)
    about = {"index": index.name, "method": method}
    if body.query is not None or body.vector is not None:
        return {**about, "hits": answers[0], "took_ms": times.ms()}
    return {**about, "results": [{"hits": hits} for hits in answers], "took_ms": times.ms()}


def _asked(
    index: "ServedIndex", body: SearchRequest
) -> tuple[list[str], NDArray[np.float32] | None]:
    """Return the queries of a request, or its vectors, shape (n, dimension)."""
    names = [
        name
        for name in ("query", "queries", "vector", "vectors")
        if getattr(body, name) is not None
    ]
    if len(names) != 1:
        raise RequestError(400, "give one of query, queries, vector and vectors.", param="query")
    queries = [body.query] if body.query is not None else body.queries
    if queries is not None:
        for position, query in enumerate(queries):
            if not query.strip():
                raise RequestError(400, f"query {position} is empty.", param=names[0])
        return queries, None
    rows = [body.vector] if body.vector is not None else body.vectors
    assert rows is not None
    if body.sets or body.rerank:
        raise RequestError(400, "sets and rerank need the words of a query.", param=names[0])
    if index.dimension is None:
        raise RequestError(400, f"{index.name} holds no dense vectors.", param=names[0])
    for position, row in enumerate(rows):
        if len(row) != index.dimension:
            raise RequestError(
                400,
                f"vector {position} has {len(row)} dimensions, but {index.name} has "
                f"{index.dimension}.",
                param=names[0],
            )
    with np.errstate(over="ignore"):
        vectors = np.array(rows, np.float32)
    if not np.isfinite(vectors).all():
        raise RequestError(400, "a vector holds numbers beyond float32.", param=names[0])
    return [], vectors


def _method(index: "ServedIndex", body: SearchRequest, by_vector: bool) -> str:
    method = body.method or index.methods[0]
    if method not in index.methods:
        reason = ""
        if method in ("bm25", "hybrid"):
            reason = " The documents' texts are not at hand: start with --data COLLECTION."
        raise RequestError(
            400,
            f"unknown method {method!r}: {index.name} has {', '.join(index.methods)}.{reason}",
            param="method",
        )
    if by_vector and method != index.methods[0]:
        raise RequestError(400, f"method {method} needs the words of a query.", param="method")
    return method


def _rerank_depth(served: "Served", index: "ServedIndex", body: SearchRequest) -> int:
    """Return how many hits the reranker orders."""
    if not body.rerank:
        return 0
    reranker_of(served)
    if not index.live.has_texts:
        raise RequestError(
            400,
            "rerank needs the documents' texts, which are not at hand: start with --data "
            "COLLECTION.",
            param="rerank",
        )
    return RERANKED if body.rerank is True else int(body.rerank)


async def _parsed(served: "Served", where: str | None) -> "Expression | None":
    """Return a condition; a long one is parsed for more than 0.1 s, so a thread does it."""
    if where is None or not where.strip():
        return None
    from retrodistill.data.filters import parse_where

    with of_condition():
        return await in_thread(served, parse_where, where)


def _hits(
    index: "ServedIndex", lists: Sequence[Sequence[tuple[str, float]]], fields: Sequence[str]
) -> list[list[dict[str, Any]]]:
    """Return the hits of each list with their texts, and the attributes that were asked for.

    It waits for a change that is applied, so it is not for the event loop.
    """
    ids = list(dict.fromkeys(name for found in lists for name, _ in found))
    docs = dict(zip(ids, index.live.docs(ids), strict=True))
    return [
        [
            _hit(doc, score, fields)
            for name, score in found
            if (doc := docs[name]) is not None  # else deleted meanwhile
        ]
        for found in lists
    ]


def _hit(doc: "Document", score: float, fields: Sequence[str]) -> dict[str, Any]:
    hit: dict[str, Any] = {"id": doc.id, "score": score, "title": doc.title, "text": doc.text}
    if fields:
        hit["fields"] = {name: doc.fields.get(name) for name in fields}
    return hit


def _check_fields(index: "ServedIndex", fields: Sequence[str]) -> None:
    attributes = index.live.attributes
    names = attributes.names if attributes is not None else []
    for name in fields:
        if name not in names:
            message = f"unknown field {name!r}: {index.name} has {', '.join(names) or 'none'}."
            raise RequestError(400, message, param="fields")


def _no_document(index: "ServedIndex", id: str) -> RequestError:
    return RequestError(404, f"{index.name} has no document {id!r}.", param="id")
