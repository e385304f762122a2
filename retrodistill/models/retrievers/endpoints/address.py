"""Where a served model answers, and how it is asked: `URL,option=value,...`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from retrodistill.base.config.base import at_least
from retrodistill.base.config.reading import settings_of
from retrodistill.base.endpoints import check_address
from retrodistill.base.errors import ConfigError

EXAMPLE = "http://localhost:8080/v1"

KEYS = ("RETRODISTILL_API_KEY", "OPENAI_API_KEY")
"""Environment variables of the key; the first that is set is sent."""

VARIABLE = r"[A-Z_][A-Z0-9_]*"

OPTION = re.compile(r",(?=[A-Za-z_-]+=)")
"""Where options are cut: other commas belong to a value, such as a prefix that is a sentence."""

NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<address>https?://.*)", re.DOTALL)

UNTYPED = "none"
"""Value of the option input-type for servers that know one side only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """What every served model can be set to."""

    url: str
    """Address that requests go to."""

    key: str | None = None
    """Environment variable of the API key (default: the first of KEYS that is set)."""

    concurrency: int = 4
    """Requests at the same time."""

    timeout: float = 60.0
    """Longest silence of the server, in seconds."""

    def __post_init__(self) -> None:
        at_least(self, 1, "concurrency")
        at_least(self, 0.001, "timeout")
        if self.key is not None and not re.fullmatch(VARIABLE, self.key):
            raise ConfigError(
                "the option key= takes the name of an environment variable that holds the key, "
                f"such as {KEYS[0]}, and never the key itself."
            )

    @property
    def identity(self) -> str:
        """Return what shapes an answer: the address without key, concurrency and timeout."""
        return repr(replace(self, key=None, concurrency=1, timeout=1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingsAddress(Address):
    """An OpenAI-compatible embeddings endpoint."""

    model: str | None = None
    """Model to ask for (default: the only one that the server lists)."""

    query_prefix: str = ""
    document_prefix: str = ""
    """Texts to put before queries and documents, for servers that know one side only."""

    input_type: str | None = None
    """QUERY/DOCUMENT, the values of the field `input_type` that choose a side, or `none` (default:
    query/document where the server accepts them and no prefix is set)."""

    dimensions: int | None = None
    """Number of dimensions to ask for, of models that can shorten their vectors."""

    batch: int = 32
    """Texts of a request."""

    def __post_init__(self) -> None:
        Address.__post_init__(self)
        at_least(self, 1, "dimensions", "batch")
        if self.input_type not in (None, UNTYPED) and not all(self.types):
            raise ConfigError(
                "the option input-type= must be QUERY/DOCUMENT, as in query/passage, or none, but "
                f"it is {self.input_type!r}."
            )

    @property
    def types(self) -> tuple[str, str]:
        """Return the values of `input_type` for queries and documents."""
        query, _, document = (self.input_type or "query/document").partition("/")
        return query, document

    @property
    def is_prefixed(self) -> bool:
        """Return whether prefixes tell queries from documents."""
        return bool(self.query_prefix or self.document_prefix)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchAddress(Address):
    """The search of a server: index, method and reranker are the server's."""

    index: str | None = None
    """Name of the index (default: the server's first)."""

    method: Literal["dense", "bm25", "hybrid"] | None = None
    """What finds documents (default: the server's)."""

    rerank: str | None = None
    """Hits of the first stage that the reranker orders, or true for the server's own number."""

    def __post_init__(self) -> None:
        Address.__post_init__(self)
        if not re.fullmatch(r"true|false|[1-9]\d*", self.rerank or "true"):
            raise ConfigError(
                "the option rerank= must be a number of hits, true or false, but it is "
                f"{self.rerank!r}."
            )

    def body(self) -> dict[str, str | int | bool]:
        """Return the fields of a request beside the query."""
        fields = {"index": self.index, "method": self.method}
        chosen: dict[str, str | int | bool] = {
            name: value for name, value in fields.items() if value is not None
        }
        if self.rerank is not None:
            words = {"true": True, "false": False}
            chosen["rerank"] = words[self.rerank] if self.rerank in words else int(self.rerank)
        return chosen


def endpoint_names(arguments: Sequence[str]) -> dict[str, str]:
    """Return the name of each endpoint in a table, with its address: `NAME=URL`, else the URL.

    Raises:
        ConfigError: two have the same name.

    """
    names: dict[str, str] = {}
    for argument in arguments:
        match = NAMED.fullmatch(argument)
        name, address = (match["name"], match["address"]) if match else (argument, argument)
        if name in names:
            raise ConfigError(f"two endpoints are called {name!r}: name them, NAME=URL.")
        names[name] = address
    return names


def parse_address(text: str) -> EmbeddingsAddress | SearchAddress:
    """Return what `URL,option=value,...` means.

    A path that ends in /search is a search, one that ends in /embeddings is asked as it is; another
    path is a base address as that of OpenAI's clients, and no path means /v1.

    Raises:
        ConfigError: it is not an address, it holds a secret, or an option is unknown.

    """
    url, *pieces = OPTION.split(text)
    check_address(url, name="an endpoint's address", variable=KEYS[0], example=EXAMPLE)
    options: dict[str, str] = {}
    for piece in pieces:
        name, _, value = piece.partition("=")
        if name in options or not value:
            problem = "is given twice" if name in options else "needs a value"
            raise ConfigError(f"the option {name}= of {url} {problem}.")
        options[name] = value
    where = f"endpoint {url}"
    if "url" in options:
        raise ConfigError(f"{where}: the address comes first, without url=.")
    url = url.rstrip("/")
    if url.endswith("/search"):
        return settings_of(SearchAddress, options | {"url": url}, where)
    return settings_of(EmbeddingsAddress, options | {"url": _embeddings_url(url)}, where)


def _embeddings_url(url: str) -> str:
    if not urlsplit(url).path:
        url += "/v1"
    return url if url.endswith("/embeddings") else f"{url}/embeddings"
