"""The bodies of answers, as they are documented."""

from typing import Any, Literal

from pydantic import BaseModel


class Fault(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Failure(BaseModel):
    """Every answer that is not a result."""

    error: Fault


class Tokens(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int | None = None
    total_tokens: int


class Embedding(BaseModel):
    """The vector of a text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Tokens


class ServedName(BaseModel):
    """A model of `/v1/models`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: Literal["embedding", "reranker"]
    dimension: int | None = None
    dimensions: list[int] | None = None
    max_tokens: int | None = None


class ServedNames(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ServedName]


class RankedText(BaseModel):
    """A document of a rerank request."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class Reranking(BaseModel):
    """Documents, best first."""

    id: str
    model: str
    results: list[RankedText]
    meta: dict[str, Any]
    usage: Tokens | None = None


class SearchHit(BaseModel):
    """A document that was found."""

    id: str
    score: float
    title: str
    text: str
    fields: dict[str, Any] | None = None


class Hits(BaseModel):
    """The hits of one query, best first."""

    hits: list[SearchHit]


class Found(Hits):
    """The answer to a query or a vector."""

    index: str
    method: str
    took_ms: dict[str, float]


class FoundForEach(BaseModel):
    """The answer to several queries or vectors."""

    index: str
    method: str
    results: list[Hits]
    took_ms: dict[str, float]


class ServedIndexes(BaseModel):
    """What can be searched."""

    indexes: list[dict[str, Any]]
    default: str | None
    key_needed: bool


class StoredDocument(BaseModel):
    """A document of an index."""

    id: str
    title: str
    text: str
    fields: dict[str, Any]


class WasPut(BaseModel):
    """What a request has added."""

    index: str
    added: int
    replaced: int
    documents: int


class WasDeleted(BaseModel):
    """What a request has deleted."""

    index: str
    deleted: int
    unknown: list[str]
    documents: int


def answer(model: Any) -> dict[int | str, dict[str, Any]]:
    """Return what a route documents: its answer, and the form of its errors."""
    return {200: {"model": model}, "4XX": {"model": Failure}, "5XX": {"model": Failure}}
