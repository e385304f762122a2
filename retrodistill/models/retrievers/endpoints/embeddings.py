"""A served bi-encoder as a first stage: vectors come over HTTP, exact search is done here."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.manifest import digest
from retrodistill.base.progress import bar
from retrodistill.models.retrievers.endpoints.address import UNTYPED, EmbeddingsAddress
from retrodistill.models.retrievers.endpoints.transport import Refused, Transport
from retrodistill.models.students.towers import Side

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts
    from retrodistill.models.indexes.exact import ExactIndex

PROBES = (
    "how long does a fever last",
    "A fever lasts three to four days in most people, and a doctor should be asked after a week.",
    "capital of France",
    "Paris has been the capital of France since the tenth century, with short interruptions.",
)
"""Texts whose vectors stand for the model: what changes them is another model."""

SAME = 0.999
"""Least cosine of two answers to the same text by the same model; number types differ by less."""

DOCS_AT_ONCE = 4096
"""Documents whose texts are in memory at once."""


class EndpointEncoder:
    """The model behind an embeddings endpoint as an `Encoder`.

    Its vectors are not kept from run to run: a server may serve another model under the same name,
    and then old vectors would be measured. For the same reason the probes are asked again with
    `check_unchanged`.

    Raises:
        ConfigError: the server cannot be reached, refuses the probes, or lists several models and
            the address names none.
        DataError: its answers are malformed.

    """

    fingerprint: str
    """Hash of the address and of the vectors of the probes."""

    dimension: int

    def __init__(self, address: EmbeddingsAddress) -> None:
        self.address = address
        self._transport = Transport(address)
        self._model = address.model or self._only_model()
        self.dimension = 0
        self._typed = address.input_type != UNTYPED and not (
            address.is_prefixed and address.input_type is None
        )
        self._probes = self._first_answers()
        self.dimension = self._probes["query"].shape[1]
        answers = [vectors.tobytes() for vectors in self._probes.values()]
        self.fingerprint = digest(address.identity, *answers)
        self._log()

    @property
    def has_sides(self) -> bool:
        """Return whether a text has different vectors as a query and as a document."""
        return not np.allclose(self._probes["query"], self._probes["document"], atol=1e-3)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimension)."""
        return self._encode(texts, "query")

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimension)."""
        return self._encode(texts, "document")

    def check_unchanged(self) -> None:
        """Ask the probes again.

        Raises:
            DataError: their vectors are others than at the start.

        """
        for side, before in self._probes.items():
            lowest = float(cosines(self._ask(PROBES, side), before).min())
            if lowest < SAME:
                raise DataError(
                    f"{self.address.url} serves another model than at the start: the cosine of "
                    f"vectors of one text, as a {side}, is {lowest:.4f}. Measure it again."
                )

    def _only_model(self) -> str | None:
        """Return the only model that the server lists; None if it has no list."""
        url = f"{self.address.url.removesuffix('/embeddings')}/models"
        try:
            listed = self._transport.get(url)["data"]
            # our own servers list rerankers too
            names = [row["id"] for row in listed if row.get("kind", "embedding") == "embedding"]
        except (Refused, DataError, KeyError, TypeError, AttributeError):
            return None
        if len(names) == 1:
            return str(names[0])
        raise ConfigError(
            f"{self.address.url} serves {', '.join(map(str, names)) or 'no model'}: choose with "
            "the option model=NAME."
        )

    def _first_answers(self) -> dict[Side, NDArray[np.float32]]:
        """Return the probes' vectors; find out whether the server accepts `input_type`."""
        try:
            query = self._ask(PROBES, "query")
        except Refused as refusal:
            if not self._typed or self.address.input_type or refusal.status not in (400, 422):
                raise
            self._typed = False
            query = self._ask(PROBES, "query")
        self.dimension = query.shape[1]
        return {"query": query, "document": self._ask(PROBES, "document")}

    def _log(self) -> None:
        model = self._model or "a model without a name"
        log.info(f"{self.address.url}: {model}, {self.dimension} dimensions.")
        if not self.has_sides:
            log.info(
                f"{self.address.url} gives a text the same vector as a query and as a document. "
                "If the model wants prompts, give the options query-prefix= and document-prefix=."
            )
        lengths = np.linalg.norm(self._probes["document"], axis=1)
        if not np.allclose(lengths, 1.0, atol=0.01):
            log.info(
                f"{self.address.url}: vectors do not have length 1; they are compared by inner "
                "product."
            )

    def _encode(self, texts: Sequence[str], side: Side) -> NDArray[np.float32]:
        positions: dict[str, int] = {}
        rows = np.array([positions.setdefault(text, len(positions)) for text in texts], np.int64)
        distinct, size = list(positions), self.address.batch
        batches = [distinct[start : start + size] for start in range(0, len(distinct), size)]
        parts = self._transport.map(lambda batch: self._ask(batch, side), batches)
        vectors = np.concatenate([np.empty((0, self.dimension), np.float32), *parts])
        return vectors[rows]

    def _ask(self, texts: Sequence[str], side: Side) -> NDArray[np.float32]:
        """Return the vectors of a few texts, by one request."""
        address = self.address
        prefix = address.query_prefix if side == "query" else address.document_prefix
        body: dict[str, Any] = {"input": [prefix + text for text in texts]}
        body["encoding_format"] = "base64"  # as OpenAI's clients do; lists of numbers are read too
        if self._model is not None:
            body["model"] = self._model
        if self._typed:
            body["input_type"] = address.types[side == "document"]
        if address.dimensions is not None:
            body["dimensions"] = address.dimensions
        answer = self._transport.post(body)
        try:
            return read_vectors(answer, len(texts), self.dimension or address.dimensions)
        except DataError as error:
            raise DataError(f"{address.url}: {error}") from None


def read_vectors(answer: Any, count: int, dimension: int | None) -> NDArray[np.float32]:
    """Return the vectors of an answer in OpenAI's form, in the order of the texts.

    `count` and `dimension` are what was asked for; None accepts any dimension.

    Raises:
        DataError: vectors are missing, malformed, of several dimensions, not finite, or all zero.

    """
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError('the answer holds no list "data" of vectors. Is it an embeddings endpoint?')
    if len(rows) != count:
        raise DataError(f"the answer holds {len(rows)} vectors for {count} texts.")
    indices = [row.get("index") for row in rows]
    if sorted(map(str, indices)) != sorted(map(str, range(count))):
        raise DataError(f"the vectors' indices are not 0 to {count - 1}, each once: {indices[:5]}.")
    ordered = sorted(rows, key=lambda row: int(row["index"]))
    vectors = [_vector(row.get("embedding"), number) for number, row in enumerate(ordered)]
    sizes = {len(vector) for vector in vectors} | ({dimension} if dimension else set())
    if len(sizes) > 1:
        raise DataError(f"vectors have different dimensions: {', '.join(map(str, sorted(sizes)))}.")
    matrix = np.stack(vectors)
    for number, vector in enumerate(matrix):
        if not np.isfinite(vector).all() or not vector.any():
            problem = "is all zero" if np.isfinite(vector).all() else "holds NaN or infinity"
            raise DataError(f"the vector of text {number} of {count} {problem}.")
    return matrix


def has_text(text: str) -> bool:
    """Return whether a server can embed a text: blanks alone are refused as no text is."""
    return bool(text.strip())


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each row with the same row of the other matrix."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    products = np.einsum("nd,nd->n", first, second)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    values: NDArray[np.float64] = products / np.maximum(lengths, np.finfo(np.float64).tiny)
    return values


class ServedEmbeddings:
    """The documents whose served vectors have the highest inner product with the query's.

    Servers refuse empty texts: documents without text are not sent and never found, and a query
    without text finds nothing.
    """

    def __init__(self, address: EmbeddingsAddress, docs: "Texts") -> None:
        self.encoder = EndpointEncoder(address)
        self.fingerprint = self.encoder.fingerprint
        self._docs = docs

    @cached_property
    def _index(self) -> "ExactIndex":
        from retrodistill.models.indexes.exact import ExactIndex

        index, docs = ExactIndex(self.encoder.dimension), self._docs
        with bar(f"embedding at {self.encoder.address.url}", len(docs)) as advance:
            for start in range(0, len(docs), DOCS_AT_ONCE):
                rows = np.arange(start, min(start + DOCS_AT_ONCE, len(docs)))
                texts = docs.full_texts(rows)
                filled = np.flatnonzero([has_text(text) for text in texts])
                vectors = self.encoder.encode_docs([texts[row] for row in filled])
                index.add(docs.ids(rows[filled]), vectors)
                advance(len(rows))
        if len(index) < len(docs):
            log.info(f"{len(docs) - len(index):,} documents without text are not sent.")
        self.encoder.check_unchanged()
        return index

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors, in memory."""
        return len(self._index) * self.encoder.dimension * 4

    def ask(self, query: str) -> None:
        """Send one query and wait for its vector, for its time."""
        self.encoder.encode_queries([query])

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's nearest documents.

        A single query is not checked, so that its time is that of one request.

        Raises:
            DataError: the server's model has changed meanwhile.

        """
        index = self._index
        vectors = self.encoder.encode_queries([query for query in queries if has_text(query)])
        if len(queries) > 1:
            self.encoder.check_unchanged()
        hits = zip(*index.search(vectors, k), strict=True)
        for query in queries:
            doc_ids, scores = next(hits) if has_text(query) else ([], np.empty(0, np.float32))
            yield self._docs.rows(doc_ids), scores


def _vector(value: Any, number: int) -> NDArray[np.float32]:
    """Return a vector from base64 of little-endian float32, or from a list of numbers."""
    try:
        if isinstance(value, str):
            vector = np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        else:
            with np.errstate(over="ignore"):  # infinity is refused with the rest
                vector = np.array(value, np.float32)
    except (binascii.Error, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"the vector of text {number} cannot be read ({error}).") from None
    if vector.ndim != 1 or not len(vector):
        raise DataError(f"the vector of text {number} is not a list of numbers.")
    return vector.astype(np.float32)
