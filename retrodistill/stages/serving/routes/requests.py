"""The bodies of requests, as they are checked and documented."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

MAX_INPUTS = 2048
"""Texts, documents or ids of a request."""

MAX_QUERIES = 256
"""Queries of a search."""

MAX_K = 1000


def _unicode(text: str) -> str:
    """Return a text that a tokenizer can read: JSON can hold half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is not a character.") from None
    return text


def _one_of(expected: str) -> Any:
    """Say what may stand in a field of several types, in place of what each of them lacks."""

    def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            for detail in error.errors():
                if detail["type"] in ("value_error", "too_long", "too_short"):
                    raise ValueError(detail["msg"].removeprefix("Value error, ")) from None
            raise ValueError(f"must be {expected}.") from None

    return WrapValidator(checked)


Text = Annotated[str, AfterValidator(_unicode)]
Id = Annotated[Text, Field(min_length=1, max_length=1024)]
Condition = Annotated[Text, Field(max_length=10_000)]


def _example(**body: Any) -> ConfigDict:
    """Return the settings of a body that is documented by an example."""
    return ConfigDict(json_schema_extra={"examples": [body]})


class OfClients(BaseModel):
    """A body that other people's clients send: fields that mean nothing here are ignored."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Ours(BaseModel):
    """A body of our own interface: a misspelled field is an error."""

    model_config = ConfigDict(extra="forbid")


class EmbeddingsRequest(OfClients):
    """`POST /v1/embeddings`, as OpenAI has it."""

    model_config = _example(input=["how do I reset it"], input_type="query")

    model: str | None = Field(
        None, description="A name of /v1/models; NAME:query is its query side."
    )
    input: Annotated[
        Text | list[Text] | list[int] | list[list[int]],
        _one_of("a text or a list of texts"),
    ] = Field(description=f"A text, or up to {MAX_INPUTS:,} texts.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="The model's size, or a Matryoshka size.")
    input_type: Literal["query", "document"] | None = Field(
        None, description="Whose prompt and tower read the texts (default: the document's)."
    )
    truncate: bool = Field(True, description="Cut texts at the model's limit; else 400.")
    user: str | None = None


class RerankDocument(OfClients):
    """A document of a rerank request."""

    text: Text


class RerankRequest(OfClients):
    """`POST /rerank`, as Cohere and Jina have it."""

    model_config = _example(query="how do I reset it", documents=["Hold the button.", "A hotel."])

    model: str | None = None
    query: Text = Field(min_length=1)
    documents: list[Annotated[Text | RerankDocument, _one_of("a text or an object with one")]] = (
        Field(min_length=1, max_length=MAX_INPUTS)
    )
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False
    raw_scores: bool = Field(
        False, description="Return the model's own numbers in place of their sigmoid."
    )
    max_tokens_per_doc: int | None = Field(None, ge=1)


class SearchRequest(Ours):
    """`POST /search`: one of query, queries, vector and vectors."""

    model_config = _example(query="how do I reset it", k=5)

    query: Text | None = None
    queries: list[Text] | None = Field(None, min_length=1, max_length=MAX_QUERIES)
    vector: list[float] | None = None
    vectors: list[list[float]] | None = Field(None, min_length=1, max_length=MAX_QUERIES)
    index: str | None = Field(None, description="A name of /indexes (default: the first).")
    k: int = Field(10, ge=1, le=MAX_K)
    where: Condition | None = Field(None, examples=["year >= 2020 and lang = 'en'"])
    fields: list[str] = Field([], description="Attributes to return.", max_length=256)
    method: str | None = Field(
        None, description="A method of /indexes: dense, bm25 or hybrid (default: the first)."
    )
    rerank: Annotated[
        bool | Annotated[int, Field(ge=1, le=MAX_K)],
        _one_of(f"true, false or a number from 1 to {MAX_K:,}"),
    ] = Field(False, description="Order the hits by the reranker; a number is how many.")
    sets: bool = Field(False, description="Read AND, OR, NOT and brackets in the query.")
    by_document: bool = Field(False, description="Each document once, by its best passage.")


class NewDocument(Ours):
    """A document to put."""

    id: Id
    title: Text = ""
    text: Text = ""
    fields: dict[str, Any] = {}


class PutRequest(Ours):
    """`PUT /documents`."""

    model_config = _example(documents=[{"id": "n1", "title": "Reset", "text": "Hold the button."}])

    documents: list[NewDocument] = Field(min_length=1, max_length=MAX_INPUTS)


class DeleteRequest(Ours):
    """`DELETE /documents`."""

    model_config = _example(ids=["n1"])

    ids: list[Id] = Field(min_length=1, max_length=MAX_INPUTS)
