"""`/v1/embeddings` and `/v1/models`: OpenAI's interface."""

import asyncio
import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.responses import Response

from retrodistill.models.students.towers import SIDES
from retrodistill.models.students.truncated import shortened
from retrodistill.stages.serving.errors import RequestError, unknown_name
from retrodistill.stages.serving.routes.answers import Embeddings, ServedName, ServedNames, answer
from retrodistill.stages.serving.routes.requests import MAX_INPUTS, EmbeddingsRequest
from retrodistill.stages.serving.service import Service, in_thread, json_response

if TYPE_CHECKING:
    from retrodistill.models.students.towers import Side
    from retrodistill.stages.serving.served import Served, ServedModel, ServedReranker

MANY = 64
"""Vectors from which an answer is written in a thread."""


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["embeddings"])

    @router.post("/v1/embeddings", summary="Vectors of texts", responses=answer(Embeddings))
    @router.post("/embeddings", include_in_schema=False)
    async def embeddings(body: EmbeddingsRequest) -> Response:
        with service.serving() as served:
            model, side = _model_and_side(served, body)
            texts = _texts(body.input)
            dimension = _dimension(model, body.dimensions)
            await _check_lengths(served, model, side, texts, body, service)
            outcome = await asyncio.wrap_future(model.embed(texts, side))
            arguments = (outcome.results, outcome.size, body, model, dimension)
            if len(texts) < MANY:
                return _answer(*arguments)
            return await in_thread(served, _answer, *arguments)

    @router.get("/v1/models", summary="What is served", responses=answer(ServedNames))
    async def models() -> Response:
        with service.serving() as served:
            return json_response({"object": "list", "data": _listed(served)})

    @router.get("/v1/models/{name:path}", summary="One of them", responses=answer(ServedName))
    async def model(name: str) -> Response:
        with service.serving() as served:
            listed = {entry["id"]: entry for entry in _listed(served)}
            if name not in listed:
                raise unknown_name("model", name, [*listed], param="model", code="model_not_found")
            return json_response(listed[name])

    return router


def _listed(served: "Served") -> list[dict[str, Any]]:
    """Return the entries of `/v1/models`."""
    entries = [
        {
            **_entry(model, "embedding"),
            "dimension": model.encoder.dimension,
            "dimensions": list(model.dimensions),
            "max_tokens": model.encoder.max_length("document"),
        }
        for model in served.models.values()
    ]
    if served.reranker is not None:
        entries.append(_entry(served.reranker, "reranker"))
    return entries


def _entry(model: "ServedModel | ServedReranker", kind: str) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "retrodistill",
        "kind": kind,
    }


def _model_and_side(served: "Served", body: EmbeddingsRequest) -> "tuple[ServedModel, Side]":
    """Return the model that a request names, as NAME or NAME:query, and the side."""
    if not served.models:
        raise RequestError(404, "no model of embeddings is served: start with --model MODEL.")
    if body.model is None:
        return next(iter(served.models.values())), body.input_type or "document"
    name, _, suffix = body.model.rpartition(":")
    if suffix in SIDES and body.model not in served.models:
        side: Side = suffix
        if body.input_type not in (None, side):
            raise RequestError(
                400, f"model {body.model!r} and input_type disagree.", param="input_type"
            )
    else:
        name, side = body.model, body.input_type or "document"
    if name not in served.models:
        raise unknown_name(
            "model", body.model, [*served.models], param="model", code="model_not_found"
        )
    return served.models[name], side


def _texts(value: str | Sequence[Any]) -> list[str]:
    """Return the texts of an `input`.

    Raises:
        RequestError: there is none or too many, one is empty, or they are token ids.

    """
    texts = [value] if isinstance(value, str) else list(value)
    if not texts:
        raise RequestError(400, "input is empty: send a text or a list of texts.", param="input")
    if not all(isinstance(text, str) for text in texts):
        raise RequestError(
            400,
            "input holds token ids, which mean something to their own tokenizer only: send text. "
            "In LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False.",
            param="input",
            code="token_ids",
        )
    if len(texts) > MAX_INPUTS:
        message = f"input holds {len(texts):,} texts, but at most {MAX_INPUTS:,} are read at once."
        raise RequestError(400, message, param="input")
    for position, text in enumerate(texts):
        if not text.strip():
            raise RequestError(400, f"input {position} is an empty text.", param="input")
    return texts


def _dimension(model: "ServedModel", requested: int | None) -> int:
    """Return the size of the vectors that a request wants."""
    if requested is None or requested in model.dimensions:
        return requested or model.dimensions[0]
    sizes = ", ".join(map(str, model.dimensions))
    message = f"dimensions {requested} is not offered by {model.name}, which has: {sizes}."
    raise RequestError(400, message, param="dimensions")


async def _check_lengths(
    served: "Served",
    model: "ServedModel",
    side: "Side",
    texts: Sequence[str],
    body: EmbeddingsRequest,
    service: Service,
) -> None:
    """Refuse a request of too many tokens, or of a text that may not be cut.

    Texts that may be cut have hardly more tokens than bytes, beside the few of their frame: most
    requests are fine without counting.
    """
    budget, limit = service.settings.request_tokens, model.encoder.max_length(side)
    if body.truncate and sum(min(limit, len(text.encode())) for text in texts) <= budget:
        return
    counts = await in_thread(served, model.encoder.count_whole, texts, side)
    if not body.truncate:
        for position, count in enumerate(counts):
            if count > limit:
                message = f"input {position} has {count:,} tokens, but the limit is {limit:,}."
                raise RequestError(400, message, param="input", code="context_length_exceeded")
    total = sum(min(limit, count) for count in counts)
    if total > budget:
        message = (
            f"input has {total:,} tokens, but a request may have {budget:,}: send less at once."
        )
        raise RequestError(400, message, param="input", code="too_many_tokens")


def _answer(
    vectors: list[NDArray[np.float32]],
    tokens: int,
    body: EmbeddingsRequest,
    model: "ServedModel",
    dimension: int,
) -> Response:
    """Return the answer that holds the vectors."""
    matrix = np.stack(vectors)
    if dimension < matrix.shape[1]:
        matrix = shortened(matrix, dimension, normalised=model.encoder.normalised)
    rows: list[Any] = list(matrix)
    if body.encoding_format == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in matrix]
    data = [
        {"object": "embedding", "index": position, "embedding": row}
        for position, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    name = body.model or model.name
    return json_response({"object": "list", "data": data, "model": name, "usage": usage})
