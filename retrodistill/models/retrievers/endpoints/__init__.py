"""Served models as first stages: what answers at a URL finds the documents of a query.

`endpoint:URL` is an OpenAI-compatible embeddings endpoint, whose vectors are searched exactly here,
or a server's `/search`, whose hits are taken as they come.
"""

from typing import TYPE_CHECKING, TypeAlias

from retrodistill.base.types import RetrieverOptions
from retrodistill.models.retrievers.endpoints.address import SearchAddress, parse_address
from retrodistill.models.retrievers.endpoints.embeddings import ServedEmbeddings
from retrodistill.models.retrievers.endpoints.search import ServedSearch

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

__all__ = ["ServedEmbeddings", "ServedRetriever", "ServedSearch", "open_endpoint"]

ServedRetriever: TypeAlias = ServedEmbeddings | ServedSearch


def open_endpoint(argument: str, docs: "Texts", options: RetrieverOptions) -> ServedRetriever:
    """Return what a server finds, or what is nearest by its vectors: `URL,option=value`.

    The server is asked a few probes at once. The options of local models do not apply: length and
    number type are the server's.

    Raises:
        ConfigError: an option is unknown, or the server cannot be reached or refuses the probes.
        DataError: its answers are malformed.

    """
    address = parse_address(argument)
    if isinstance(address, SearchAddress):
        return ServedSearch(address, docs)
    return ServedEmbeddings(address, docs)
