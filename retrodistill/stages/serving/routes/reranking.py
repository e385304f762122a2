"""`/rerank`: the interface of Cohere and Jina."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.responses import Response

from retrodistill.base.types import Doc
from retrodistill.stages.serving.errors import RequestError
from retrodistill.stages.serving.pipeline import reranker_of, scored
from retrodistill.stages.serving.routes.answers import Reranking, answer
from retrodistill.stages.serving.routes.requests import RerankRequest
from retrodistill.stages.serving.service import Service, in_thread, json_response

if TYPE_CHECKING:
    from retrodistill.stages.serving.served import ServedReranker

PROBABLE = ("probability", "percentiles", "min-max")
"""Scales that are from 0 to 1 already."""


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["reranking"])

    @router.post(
        "/rerank",
        summary="Documents in the order of their relevance",
        responses=answer(Reranking),
    )
    @router.post("/v1/rerank", include_in_schema=False)
    @router.post("/v2/rerank", include_in_schema=False)
    async def rerank(body: RerankRequest) -> Response:
        with service.serving() as served:
            reranker = reranker_of(served, body.model)
            texts = [doc if isinstance(doc, str) else doc.text for doc in body.documents]
            if not body.query.strip():
                raise RequestError(400, "query is empty.", param="query")
            cut = await in_thread(served, _cut, reranker, texts, body.max_tokens_per_doc)
            scores = await scored(reranker, body.query, [Doc("", "", text) for text in cut])
            content = _content(reranker, body, texts, scores)
            content |= await in_thread(served, _usage, reranker, body.query, cut)
            return json_response(content)

    return router


def relevance(scores: NDArray[np.float32], scale: str) -> NDArray[np.float32]:
    """Return scores as numbers from 0 to 1: the sigmoid, unless they are such numbers already.

    Never by the least and the greatest of a request: the number of a document does not depend on
    the others.
    """
    if scale in PROBABLE:
        return scores
    values: NDArray[np.float32] = np.exp(-np.logaddexp(0, -scores.astype(np.float64))).astype(
        np.float32
    )
    return values


def _content(
    reranker: "ServedReranker",
    body: RerankRequest,
    texts: Sequence[str],
    scores: NDArray[np.float32],
) -> dict[str, Any]:
    """Return the answer, best first; of equal scores the first document."""
    values = scores if body.raw_scores else relevance(scores, reranker.engine.teacher.scale)
    order = np.argsort(-scores, kind="stable")[: body.top_n]
    results: list[dict[str, Any]] = [
        {"index": int(row), "relevance_score": float(values[row])} for row in order
    ]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    return {
        "id": str(uuid4()),
        "model": reranker.name,
        "results": results,
        "meta": {"billed_units": {"search_units": 1}},
    }


def _usage(reranker: "ServedReranker", query: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the tokens that were read, if the reranker counts them."""
    count = getattr(reranker.engine.teacher, "count_tokens", None)
    return {} if count is None else {"usage": {"total_tokens": count(query, texts)}}


def _cut(reranker: "ServedReranker", texts: Sequence[str], tokens: int | None) -> list[str]:
    """Return texts without what is behind their first tokens, by the reranker's tokenizer."""
    if tokens is None:
        return list(texts)
    cut = getattr(reranker.engine.teacher, "cut_text", None)
    if cut is None:
        raise RequestError(
            400,
            f"{reranker.name} does not count tokens of documents: omit max_tokens_per_doc.",
            param="max_tokens_per_doc",
        )
    return [cut(text, tokens) for text in texts]
