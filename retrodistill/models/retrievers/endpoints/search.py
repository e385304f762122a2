"""A server's search as a first stage: the queries are sent, the hits are the result."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.manifest import digest
from retrodistill.base.progress import bar
from retrodistill.models.retrievers.endpoints.address import SearchAddress
from retrodistill.models.retrievers.endpoints.transport import Transport

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

PROBE, PROBE_HITS = "how long does a fever last", 10
"""Query whose hits stand for the whole pipeline."""

QUERIES_AT_ONCE = 256


class ServedSearch:
    """The documents that a server's `POST /search` finds, in the server's order.

    Raises:
        ConfigError: the server cannot be reached or refuses the probe.
        DataError: its answers are malformed, or its documents are not the collection's.

    """

    def __init__(self, address: SearchAddress, docs: "Texts") -> None:
        self.address = address
        self._docs = docs
        self._transport = Transport(address)
        rows, scores = self._hits(PROBE, PROBE_HITS)
        self.fingerprint = digest(address.identity, rows.tobytes(), scores.tobytes())

    @property
    def nbytes(self) -> int:
        """Return 0: the memory is the server's."""
        return 0

    def ask(self, query: str) -> None:
        """Send one query and wait for its hits, for its time."""
        self._post(query, PROBE_HITS)

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's hits."""
        with bar(f"searching at {self.address.url}", len(queries)) as advance:
            for start in range(0, len(queries), QUERIES_AT_ONCE):
                batch = queries[start : start + QUERIES_AT_ONCE]
                yield from self._transport.map(partial(self._hits, k=k), batch)
                advance(len(batch))

    def _post(self, query: str, k: int) -> Any:
        return self._transport.post({"query": query, "k": k, **self.address.body()})

    def _hits(self, query: str, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores of a query's hits.

        Where a reranker has ordered the upper hits only, scores are of two scales and may rise
        from one hit to the next: then the ranks take their place, so that the order is kept.
        """
        url = self.address.url
        ids, scores = read_hits(self._post(query, k), url)
        if len(ids) > k:
            raise DataError(f"{url} gives {len(ids)} hits where {k} were requested.")
        rows = self._docs.find(ids)
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            raise DataError(
                f"{url} finds document {ids[absent[0]]!r}, which the collection does not have. Is "
                "its index of another collection? (The option index= chooses one.)"
            )
        if (np.diff(scores) > 0).any():
            scores = -np.arange(len(scores), dtype=np.float32)
        return rows, scores


def read_hits(answer: Any, url: str) -> tuple[list[str], NDArray[np.float32]]:
    """Return the ids and scores of an answer's hits.

    Raises:
        DataError: the answer is malformed, a document is there twice, or a score is not finite.

    """
    try:
        hits = answer["hits"]
        ids = [str(hit["id"]) for hit in hits]
        scores = np.array([float(hit["score"]) for hit in hits], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f'{url}: the answer is not {{"hits": [{{"id", "score"}}, ...]}} ({error!r}).'
        ) from None
    if not np.isfinite(scores).all():
        raise DataError(f"{url}: a score is NaN or infinite.")
    if len({*ids}) < len(ids):
        raise DataError(f"{url} gives a document twice for one query.")
    return ids, scores
