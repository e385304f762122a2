"""The forms that parts meet in: texts, and the protocols of teachers, encoders and indexes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from retrodistill.base.config.base import Executor, Precision

Qrels = Mapping[str, Mapping[str, int]]
"""query id -> document id -> relevance grade (0 or less: judged not relevant)."""


SCALES = {
    "logit": "unbounded, a sigmoid makes it a probability",
    "log-probability": "at most 0",
    "probability": "from 0 to 1",
    "cosine": "from -1 to 1",
    "dot": "unbounded inner product",
    "maxsim": "sum over query tokens of the best inner product",
    "bm25": "at least 0",
    "attention": "mean log of a reader's attention, at most 0",
    "z": "deviations from the mean of a query's candidates",
    "percentiles": "from 0 to 1, between two percentiles of all scores",
    "min-max": "from 0 to 1 in each list",
    "rrf": "sum of reciprocal ranks",
    "rank": "only the order within a query counts",
    "unknown": "given by others",
}
"""What a teacher's raw numbers can be, and their range."""

Rows: TypeAlias = "NDArray[np.int64]"
"""Positions in an array or a sequence."""

Unit = Literal["pair", "document", "list"]
"""How a teacher's work is cut into shards.

`pair`: each pair alone. `document`: pairs sorted by document, so that each document is met in one
place and encoded once. `list`: all candidates of a query in one call, for a score depends on them.
"""


Reads = Literal["text", "fields", "id"]
"""What of a document and of a query a teacher's number depends on.

`text`: the full text alone, so that documents of equal text share their numbers. `fields`: title
and text apart. `id`: also the id, as where numbers are looked up that somebody else has computed.
"""


@dataclass(frozen=True, slots=True)
class Doc:
    """A document, or a query (its title is then empty)."""

    id: str
    title: str
    text: str

    @property
    def full_text(self) -> str:
        """Title and text joined by one space: what every model and BM25 read."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a query and a document, over distinct queries and distinct documents.

    Pair i is `(queries[query_rows[i]], docs[doc_rows[i]])`: whatever is done to a text alone
    (to tokenise it, to encode it) is done once, however many pairs it stands in.
    """

    queries: Sequence[Doc]
    docs: Sequence[Doc]
    query_rows: "NDArray[np.int64]"
    doc_rows: "NDArray[np.int64]"

    @classmethod
    def of(cls, queries: Sequence[Doc], docs: Sequence[Doc]) -> "Pairs":
        """Return the pairs (queries[i], docs[i])."""
        import numpy as np

        if len(queries) != len(docs):
            raise ValueError(f"{len(queries)} queries cannot pair with {len(docs)} documents")
        sides: list[dict[Doc, int]] = []
        rows = []
        for side in (queries, docs):
            seen: dict[Doc, int] = {}
            rows.append(np.array([seen.setdefault(doc, len(seen)) for doc in side], np.int64))
            sides.append(seen)
        return cls(tuple(sides[0]), tuple(sides[1]), *rows)

    def __len__(self) -> int:
        return len(self.query_rows)

    def ids(self) -> "pa.Table":
        """Return the columns query_id and doc_id."""
        import pyarrow as pa

        sides = ((self.queries, self.query_rows), (self.docs, self.doc_rows))
        columns = [
            pa.array([doc.id for doc in docs], pa.string()).take(rows) for docs, rows in sides
        ]
        return pa.table(columns, names=["query_id", "doc_id"])

    def by_query(self) -> Iterator[tuple[Doc, "NDArray[np.int64]"]]:
        """Yield each query, and the places of its pairs in their order."""
        import numpy as np

        order = np.argsort(self.query_rows, kind="stable")
        bounds = np.searchsorted(self.query_rows[order], np.arange(len(self.queries) + 1))
        for query, start, end in zip(self.queries, bounds[:-1], bounds[1:], strict=True):
            yield query, order[start:end]


@runtime_checkable
class Teacher(Protocol):
    """Something slow and strong that scores queries against documents, pair by pair.

    A teacher that looks at more than the full texts names it in an attribute `reads`.
    """

    fingerprint: str
    """Hash of all that shapes a score: weights, template, maximum length, dtype."""

    scale: str
    """A name of SCALES: what the raw numbers are."""

    unit: Unit
    """How its work is cut."""

    def score(self, pairs: Pairs) -> "NDArray[np.float32]":
        """Return the raw score of each pair, float32, higher is better.

        The same call always gives the same numbers: a shard that is scored again is identical.
        """
        ...


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Comparisons of two documents for one query, over distinct queries and documents.

    Comparison i asks whether `docs[first_rows[i]]` answers `queries[query_rows[i]]` better than
    `docs[second_rows[i]]` does.
    """

    queries: Sequence[Doc]
    docs: Sequence[Doc]
    query_rows: "NDArray[np.int64]"
    first_rows: "NDArray[np.int64]"
    second_rows: "NDArray[np.int64]"

    def __len__(self) -> int:
        return len(self.query_rows)


@runtime_checkable
class Comparer(Protocol):
    """A teacher that prefers one document to another, pair by pair of them."""

    fingerprint: str
    """Hash of all that shapes a preference."""

    def compare(self, comparisons: Comparisons) -> "NDArray[np.float32]":
        """Return log p(first is better than second) of each comparison, in nats.

        A comparer asks in both orders and takes the mean, so that the place of a document in the
        question does not count, and `exp(log p)` of a comparison and of its mirror add up to 1.
        """
        ...


def reads_of(teacher: Teacher | Comparer) -> Reads:
    """Return what of a text a teacher looks at: its attribute `reads`, else `text`."""
    reads: Reads = getattr(teacher, "reads", "text")
    return reads


@runtime_checkable
class Encoder(Protocol):
    """Something that turns queries and documents into vectors of one space.

    An encoder whose documents do not depend on all that shapes its queries has an attribute
    `doc_fingerprint`, a hash of what shapes a document's vector alone.
    """

    fingerprint: str
    dimension: int

    def encode_queries(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return vectors of shape (len(texts), dimension)."""
        ...

    def encode_docs(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return vectors of shape (len(texts), dimension)."""
        ...


def doc_fingerprint_of(encoder: Encoder) -> str:
    """Return the hash of an encoder's document side: its `doc_fingerprint`, else its own."""
    doc_fingerprint: str = getattr(encoder, "doc_fingerprint", encoder.fingerprint)
    return doc_fingerprint


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrieverOptions:
    """What a retriever with a model may be given besides its argument."""

    max_tokens: int | None = None
    """Longest text, in tokens (None: the model's own limit)."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    precision: "Precision" = "auto"
    """Number type of the model's body."""

    executor: "Executor" = "local"
    workers: int | None = None
    """Who encodes documents, for retrievers that share the work."""


class Retriever(Protocol):
    """Finds the best documents of queries in the whole collection that it was made for.

    It is made as `kind(argument, docs, options)`: the argument behind the name's colon, the
    collection's documents, and `RetrieverOptions`. Making it loads the model; the documents are
    indexed when they are first needed, so that asking for a fingerprint costs no more than that.
    """

    fingerprint: str
    """Hash of the model, or of what stands for it; not of the documents."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds for the documents, which it indexes for this if need be."""
        ...

    def top(
        self, queries: Sequence[str], k: int
    ) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]":
        """Yield for each query rows and scores of its best documents, best first.

        There may be fewer than `k`, where no more match, and more, where scores are equal.
        """
        ...


@runtime_checkable
class Index(Protocol):
    """Vectors under opaque string ids, searched by inner product.

    An index never knows a model.
    """

    dimension: int

    def __len__(self) -> int: ...

    def train(self, vectors: "NDArray[np.float32]", total: int) -> None:
        """Learn from a sample of the `total` vectors that will be added."""
        ...

    def add(
        self,
        ids: Sequence[str],
        vectors: "NDArray[np.float32]",
        attributes: "pa.Table | None" = None,
    ) -> None:
        """Add vectors of shape (len(ids), dimension), and a row of attributes for each.

        Raises:
            DataError: a duplicate id, a wrong shape, NaN or infinity, attributes that do not
                fit; nothing is added then.

        """
        ...

    def delete(self, ids: Iterable[str]) -> None:
        """Delete documents.

        Raises:
            DataError: an id is unknown; nothing is deleted then.

        """
        ...

    def search(
        self, vectors: "NDArray[np.float32]", k: int, *, where: Any = None
    ) -> tuple[list[list[str]], list["NDArray[np.float32]"]]:
        """Return for each query vector its best ids and their inner products, best first.

        `where` keeps the documents whose attributes fit: one condition for all queries, or a
        sequence of one a query. A row is shorter than `k` only where fewer documents fit.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder."""
        ...

    @classmethod
    def bytes_per_vector(cls, dimension: int) -> int | None:
        """Return about how many bytes of memory a vector takes, without its id.

        None: the memory is another machine's.
        """
        ...

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Read back what `save` wrote."""
        ...
