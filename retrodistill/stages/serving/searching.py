"""`/search`, `/similar` and `/indexes`: the served pipeline from a query to documents."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.responses import Response

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Doc
from retrodistill.data.rankings.sets import evaluate_sets
from retrodistill.stages.searching.grouping import DEEPER, first_passages
from retrodistill.stages.serving.answers import Found as FoundAnswer
from retrodistill.stages.serving.answers import FoundForEach, ServedIndexes, answer
from retrodistill.stages.serving.attributes import described
from retrodistill.stages.serving.batching import InputError
from retrodistill.stages.serving.errors import RequestError
from retrodistill.stages.serving.reranking import reranker_of, scored
from retrodistill.stages.serving.schemas import MAX_K, Condition, SearchRequest
from retrodistill.stages.serving.service import Service, in_thread, index_of, json_response

if TYPE_CHECKING:
    from retrodistill.data.filters import Expression
    from retrodistill.stages.serving.live_documents import Document
    from retrodistill.stages.serving.served import Served, ServedIndex

RERANKED = 50
"""Hits of the first stage that `rerank: true` orders."""

FUSED = 100
"""Hits of either system from which a hybrid search is fused, at least."""

RRF = 60.0
"""The constant of reciprocal rank fusion. Source: Cormack et al. 2009, SIGIR."""

Found = tuple[list[str], NDArray[np.float32]]
"""Ids and scores of a query, best first."""


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
            (found,) = await pipeline.nearest([vector], k + 1)
            others = [pair for pair in zip(*found, strict=True) if pair[0] != id][:k]
            hits = await in_thread(served, _hits, chosen, [others], fields or [])
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


@dataclass(slots=True)
class Times:
    """Seconds of the steps of a search."""

    began: float = field(default_factory=time.perf_counter)
    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Add the block's time to a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.steps[step] = self.steps.get(step, 0.0) + time.perf_counter() - began

    def ms(self) -> dict[str, float]:
        """Return milliseconds of the steps, and of all since the beginning."""
        steps = {name: round(1000 * seconds, 2) for name, seconds in self.steps.items()}
        return {"total": round(1000 * (time.perf_counter() - self.began), 2), **steps}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One way to search one index under one condition."""

    served: "Served"
    index: "ServedIndex"
    method: str
    where: "Expression | None"
    times: Times

    async def texts(self, queries: Sequence[str], depth: int) -> list[Found]:
        """Return the best documents of each query by the method."""
        if self.method == "bm25":
            return await self._lexical(queries, depth)
        if self.method == "hybrid":
            wide = max(depth, FUSED)
            semantic, lexical = await asyncio.gather(
                self._own(queries, wide), self._lexical(queries, wide)
            )
            return [fused(pair, depth) for pair in zip(semantic, lexical, strict=True)]
        return await self._own(queries, depth)

    async def nearest(self, vectors: Sequence[NDArray[np.float32]], depth: int) -> list[Found]:
        """Return the documents of the nearest vectors."""
        assert self.index.nearest is not None
        with self.times.of("search"), of_condition():
            inputs = [(vector, self.where) for vector in vectors]
            outcome = await asyncio.wrap_future(self.index.nearest.submit(inputs, depth))
        found: list[Found] = outcome.results
        return found

    async def _own(self, queries: Sequence[str], depth: int) -> list[Found]:
        """Return what the index's own student finds."""
        if self.index.model is None:
            with self.times.of("search"), of_condition():
                find = self.index.live.searcher.find
                ids, scores = await in_thread(
                    self.served, lambda: find(queries, depth, where=self.where)
                )
            return list(zip(ids, scores, strict=True))
        with self.times.of("encode"):
            outcome = await asyncio.wrap_future(self.index.model.embed(queries, "query"))
        return await self.nearest([*self.index.shortened(np.stack(outcome.results))], depth)

    async def _lexical(self, queries: Sequence[str], depth: int) -> list[Found]:
        assert self.index.lexical is not None
        search = self.index.lexical.search
        with self.times.of("bm25"), of_condition():
            return await in_thread(
                self.served,
                lambda: search(queries, depth, allowed=self.index.allowed(self.where)),
            )

    async def reranked(self, query: str, found: Found, depth: int) -> Found:
        """Return the first hits in the order of the reranker, with its raw scores."""
        reranker = reranker_of(self.served)
        ids = found[0][:depth]
        docs = await in_thread(self.served, self.index.live.docs, ids)
        pairs = [
            (name, Doc(name, doc.title, doc.text))
            for name, doc in zip(ids, docs, strict=True)
            if doc is not None  # deleted meanwhile
        ]
        if not pairs:
            return [], np.zeros(0, np.float32)
        with self.times.of("rerank"):
            scores = await scored(reranker, query, [doc for _, doc in pairs])
        order = np.argsort(-scores, kind="stable")
        return [pairs[row][0] for row in order], scores[order]


def fused(lists: Sequence[Found], depth: int) -> Found:
    """Return the best documents of several lists, by the sum of reciprocal ranks."""
    sums: dict[str, float] = {}
    for ids, _ in lists:
        for rank, name in enumerate(ids, start=1):
            sums[name] = sums.get(name, 0.0) + 1.0 / (RRF + rank)
    best = sorted(sums.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)[:depth]
    return [name for name, _ in best], np.array([score for _, score in best], np.float32)


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
        lists = [await _sets(pipeline, query, depth) for query in queries]
    else:

        async def stage(depth: int) -> list[Found]:
            if vectors is not None:
                return await pipeline.nearest(list(vectors), depth)
            return await pipeline.texts(queries, depth)

        lists = await (_documents(stage, depth) if body.by_document else stage(depth))
    if body.rerank:
        lists = [
            await pipeline.reranked(query, found, depth)
            for query, found in zip(queries, lists, strict=True)
        ]
    found = [list(zip(ids, scores.tolist(), strict=True))[: body.k] for ids, scores in lists]
    answers = await in_thread(served, _hits, index, found, body.fields)
    about = {"index": index.name, "method": method}
    if body.query is not None or body.vector is not None:
        return {**about, "hits": answers[0], "took_ms": times.ms()}
    return {**about, "results": [{"hits": hits} for hits in answers], "took_ms": times.ms()}


def _asked(
    index: "ServedIndex", body: SearchRequest
) -> tuple[list[str], NDArray[np.float32] | None]:
    """Return the queries of a request, or its vectors, shape (n, dimension)."""
    given = [
        name
        for name in ("query", "queries", "vector", "vectors")
        if getattr(body, name) is not None
    ]
    if len(given) != 1:
        raise RequestError(400, "give one of query, queries, vector and vectors.", param="query")
    queries = [body.query] if body.query is not None else body.queries
    if queries is not None:
        for position, query in enumerate(queries):
            if not query.strip():
                raise RequestError(400, f"query {position} is empty.", param=given[0])
        return queries, None
    rows = [body.vector] if body.vector is not None else body.vectors
    assert rows is not None
    if body.sets or body.rerank:
        raise RequestError(400, "sets and rerank need the words of a query.", param=given[0])
    if index.dimension is None:
        raise RequestError(400, f"{index.name} holds no dense vectors.", param=given[0])
    for position, row in enumerate(rows):
        if len(row) != index.dimension:
            raise RequestError(
                400,
                f"vector {position} has {len(row)} dimensions, but {index.name} has "
                f"{index.dimension}.",
                param=given[0],
            )
    with np.errstate(over="ignore"):
        vectors = np.array(rows, np.float32)
    if not np.isfinite(vectors).all():
        raise RequestError(400, "a vector holds numbers beyond float32.", param=given[0])
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


@contextmanager
def of_condition() -> Iterator[None]:
    """Let a condition that does not fit be an error of the field `where`."""
    try:
        yield
    except InputError as error:
        if not isinstance(error.error, ConfigError):
            raise
        raise RequestError(400, str(error.error), param="where") from error
    except ConfigError as error:
        raise RequestError(400, str(error), param="where") from error


async def _documents(stage: Callable[[int], Awaitable[list[Found]]], count: int) -> list[Found]:
    """Return the best passage of each of the best documents, searching as deep as that takes.

    As `searching.grouping.best_passages`, for a stage that is awaited.
    """
    depth = count
    while True:
        depth *= DEEPER
        lists = await stage(depth)
        rows = [first_passages(ids, count) for ids, _ in lists]
        enough = all(
            len(own) == count or len(ids) < depth for own, (ids, _) in zip(rows, lists, strict=True)
        )
        if enough:
            return [
                ([ids[row] for row in own], scores[own])
                for own, (ids, scores) in zip(rows, lists, strict=True)
            ]


async def _sets(pipeline: Pipeline, query: str, k: int) -> Found:
    """Return the documents of a query with operators; each of its texts is searched for."""
    loop = asyncio.get_running_loop()

    def evaluated() -> list[tuple[str, float]]:
        def lists(texts: list[str], depth: int) -> list[dict[str, float]]:
            found = asyncio.run_coroutine_threadsafe(pipeline.texts(texts, depth), loop).result()
            return [dict(zip(ids, scores.tolist(), strict=True)) for ids, scores in found]

        return evaluate_sets(query, lists, k)

    ranked = await asyncio.to_thread(evaluated)  # it waits for the threads of `in_thread`
    return [name for name, _ in ranked], np.array([score for _, score in ranked], np.float32)


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
