"""From queries to documents: the served steps, of which none holds up the event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Doc
from retrodistill.data.rankings.sets import evaluate_sets
from retrodistill.stages.searching.grouping import DEEPER, passages_of
from retrodistill.stages.serving.batching import InputError
from retrodistill.stages.serving.engines import NotFiniteError
from retrodistill.stages.serving.errors import RequestError, unknown_name
from retrodistill.stages.serving.service import in_thread

if TYPE_CHECKING:
    from retrodistill.data.filters import Expression
    from retrodistill.stages.serving.served import Served, ServedIndex, ServedReranker

FUSED = 100
"""Hits of either system from which a hybrid search is fused, at least."""

RRF = 60.0
"""The constant of reciprocal rank fusion. Source: Cormack et al. 2009, SIGIR."""

Found = tuple[list[str], NDArray[np.float32]]
"""Ids and scores of a query, best first."""


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
        hits: list[Found] = outcome.results
        return hits

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


async def best_passages(stage: Callable[[int], Awaitable[list[Found]]], count: int) -> list[Found]:
    """Return the best passage of each of the best documents, searching as deep as that takes.

    As `searching.grouping.best_passages`, for a stage that is awaited.
    """
    depth = count
    while True:
        depth *= DEEPER
        lists = await stage(depth)
        positions = passages_of([ids for ids, _ in lists], count, depth)
        if positions is not None:
            return [
                ([ids[row] for row in best], scores[best])
                for best, (ids, scores) in zip(positions, lists, strict=True)
            ]


async def found_by_sets(pipeline: Pipeline, query: str, k: int) -> Found:
    """Return the documents of a query with operators; each of its texts is searched for."""
    loop = asyncio.get_running_loop()

    def evaluated() -> list[tuple[str, float]]:
        def scored_lists(texts: list[str], depth: int) -> list[dict[str, float]]:
            lists = asyncio.run_coroutine_threadsafe(pipeline.texts(texts, depth), loop).result()
            return [dict(zip(ids, scores.tolist(), strict=True)) for ids, scores in lists]

        return evaluate_sets(query, scored_lists, k)

    ranked = await asyncio.to_thread(evaluated)  # it waits for the threads of `in_thread`
    return [name for name, _ in ranked], np.array([score for _, score in ranked], np.float32)


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


def reranker_of(served: "Served", name: str | None = None) -> "ServedReranker":
    """Return the reranker.

    Raises:
        RequestError: there is none, or none of this name.

    """
    reranker = served.reranker
    if reranker is None:
        raise RequestError(404, "no reranker is served: start with --reranker TEACHER.")
    if name not in (None, reranker.name):
        raise unknown_name(
            "reranker", str(name), [reranker.name], param="model", code="model_not_found"
        )
    return reranker


async def scored(
    reranker: "ServedReranker", query: str, docs: Sequence[Doc]
) -> NDArray[np.float32]:
    """Return the raw scores of documents, shape (len(docs),).

    Raises:
        RequestError: the reranker gave NaN for a document; its position is said.

    """
    inputs = reranker.engine.inputs(query, docs)
    try:
        outcome = await asyncio.wrap_future(reranker.pairs.submit(inputs))
    except InputError as failed:
        if not isinstance(failed.error, NotFiniteError):
            raise
        before = sum(len(part) for _, part in inputs[: failed.position])
        message = f"document {before + failed.error.position}: {failed.error}."
        raise RequestError(500, message, param="documents") from failed
    return np.concatenate([np.zeros(0, np.float32), *outcome.results])
