"""An index that lives in Milvus: embedded in this process, or on a server or cluster.

    milvus:/data/docs.db              Milvus Lite, embedded; one process at a time opens the file
    milvus:http://host:19530          a server; the token is read from MILVUS_TOKEN
    milvus:http://host:19530#docs     the same, in a collection of this name

The folder of the index holds where the collection is, never what opens it.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import write_atomically
from retrodistill.base.logging import log
from retrodistill.base.manifest import digest
from retrodistill.models.indexes.milvus_client import address, connect, quiet, reason
from retrodistill.models.indexes.milvus_fields import (
    ID,
    VECTOR,
    condition,
    plain_rows,
    refuse_long,
    schema_of,
)
from retrodistill.models.indexes.planning import Where, grouped
from retrodistill.models.indexes.validation import (
    check_attributes,
    check_dimension,
    checked_deletions,
    checked_documents,
    checked_queries,
    matrix_of,
    no_attributes,
)

if TYPE_CHECKING:
    from retrodistill.data.filters import Attributes

DETAILS = "index.json"
BATCH_BYTES = 8 << 20
"""Size of one message of vectors; a server takes 64 MB unless it is set otherwise."""
BATCH_ROWS = 1000
"""Rows of one message, and ids that one question is about."""
QUERIES = 64
"""Queries of one message."""
MOST_HITS = 16_384
"""Documents that Milvus returns for one query at the most, wherever it is not set otherwise."""


class MilvusIndex:
    """Vectors, ids and attributes in a collection of Milvus, searched there by inner product.

    While it is filled, a collection without a name of its own is called by its first documents, so
    that an interrupted command finds it again: documents that are there are compared and not sent
    a second time. When it is saved, it gets a name that nothing else has.

    A server searches with the index that it thinks best (AUTOINDEX); Milvus Lite compares every
    vector, for its graph loses documents under a condition.

    Raises:
        ConfigError: the address is malformed, holds a password, or nobody answers there.
        MissingExtra: pymilvus is not installed, or Milvus Lite for a file.

    """

    kind: ClassVar[str] = "milvus"

    def __init__(self, dimension: int, argument: str = "") -> None:
        check_dimension(dimension)
        uri, _, name = argument.partition("#")
        if name and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,254}", name):
            raise ConfigError(
                f"Milvus has no collection of the name {name!r}: letters, digits and _ only."
            )
        self.dimension = dimension
        self.uri = address(uri)
        self.collection = name
        self._named = bool(name)
        self._client = connect(self.uri)
        self._types: Attributes | None = None
        self._ids: set[str] | None = set()
        """The documents that were added here; None: all that the collection holds."""
        self._ready = False
        self._unsure = False
        """Whether the collection may hold documents that were not added here."""

    def __len__(self) -> int:
        if self._ids is not None:
            return len(self._ids)
        with self._telling():
            return self._count()

    @classmethod
    def bytes_per_vector(cls, dimension: int) -> int | None:
        """Return None: the memory is the server's. That of Milvus Lite is not counted."""
        return None

    def train(self, vectors: NDArray[np.float32], total: int) -> None:
        """Check the sample; the server learns by itself."""
        matrix_of(vectors, self.dimension, "the sample")

    def add(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        attributes: pa.Table | None = None,
    ) -> None:
        """Add vectors of shape (len(ids), dimension), and a row of attributes for each.

        Raises:
            DataError: an id that is a duplicate, no string or too long, a wrong shape, NaN or
                infinity, attributes that do not fit; nothing is added then. Or the server fails:
                add the same again, and only what is missing is sent.
            ConfigError: an attribute has a name that Milvus cannot have.

        """
        ids = list(ids)
        checked = checked_documents(ids, vectors, self.dimension, self._ids or ())
        has_attributes = (self._types is not None) if self._ready else None
        check_attributes(
            None if attributes is None else len(attributes), len(ids), others=has_attributes
        )
        self._refuse_present(ids)
        if not ids:
            return
        typed = self._typed(attributes)
        refuse_long(ids, typed)
        with self._telling():
            self._open_collection(ids, checked, typed.schema)
            try:
                self._send(ids, checked, typed)
            except BaseException:
                self._unsure = True
                raise
        if self._ids is not None:
            self._ids.update(ids)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete documents; their ids are free again.

        Raises:
            DataError: an id is unknown; nothing is deleted then.

        """
        ids = list(dict.fromkeys(ids))
        checked_deletions(ids, self._present(ids) if self._ids is None else self._ids)
        with self._telling():
            for batch in _slices(ids, BATCH_ROWS):
                self._client.delete(self.collection, filter=_among(batch))
        if self._ids is not None:
            self._ids.difference_update(ids)

    def search(
        self, vectors: NDArray[np.float32], k: int, *, where: Where = None
    ) -> tuple[list[list[str]], list[NDArray[np.float32]]]:
        """Return for each query vector its best ids and their inner products, best first.

        `where` keeps the documents whose attributes fit: one condition for all queries, or a
        sequence of one a query. Of equal scores, larger ids come first, among those that the
        server returns.

        Raises:
            DataError: a wrong shape, NaN or infinity; or the server fails.
            ConfigError: `k` is below 1, or a condition cannot be read or names no attribute.

        """
        queries = checked_queries(vectors, k, self.dimension)
        ids: list[list[str]] = [[] for _ in queries]
        scores = [np.empty(0, np.float32) for _ in queries]
        count = len(self)
        for expression, positions in grouped(where, len(queries)):
            if expression is None:
                text = ""
            elif self._types is None:
                raise no_attributes(expression)
            else:
                text = condition(expression, self._types)
            for batch in _slices(positions.tolist() if count else [], QUERIES):
                for position, hits in zip(
                    batch, self._found(queries[batch], min(k, count), text), strict=True
                ):
                    hits.sort(key=lambda hit: hit[::-1], reverse=True)
                    ids[position] = [name for name, _ in hits]
                    scores[position] = np.array([score for _, score in hits], np.float32)
        return ids, scores

    def save(self, folder: Path) -> None:
        """Let the server write what it holds, and say in an existing folder where it is.

        Raises:
            DataError: the collection holds other documents beside the ones added here.

        """
        with self._telling():
            if not self._ready:
                self._open_collection([], np.empty((0, self.dimension), np.float32), pa.schema([]))
            self._client.flush(self.collection)
            remote, local = self._count(), len(self)
            if remote != local:
                raise DataError(
                    f"the collection {self.collection} at {self.uri} holds {remote:,} documents, "
                    f"but {local:,} were added. Drop it there, or name another behind a #."
                )
            if not self._named:
                name = f"retrodistill_{uuid.uuid4().hex[:16]}"
                self._client.rename_collection(self.collection, name)
                self.collection, self._named = name, True
            self._client.load_collection(self.collection)
        types = [] if self._types is None else self._types.table.schema
        details = {
            "kind": self.kind,
            "dimension": self.dimension,
            "vectors": local,
            "uri": self.uri,
            "collection": self.collection,
            "attributes": None if self._types is None else {f.name: str(f.type) for f in types},
        }
        write_atomically(Path(folder) / DETAILS, (json.dumps(details, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open the collection that `save` named.

        Raises:
            ConfigError: nobody answers at its address.
            DataError: there is no index, its file is damaged, or its collection is gone or holds
                another number of documents.

        """
        from retrodistill.data.filters import Attributes
        from retrodistill.data.filters.columns import KINDS

        path = Path(folder) / DETAILS
        try:
            details = json.loads(path.read_text(encoding="utf-8"))
            kind, name = details["kind"], str(details["collection"])
            expected = details["vectors"]
            uri, dimension = str(details["uri"]), int(details["dimension"])
            types = {str(data_type): data_type for data_type in KINDS}
            stored_types = details["attributes"]
            fields = (
                None
                if stored_types is None
                else [(field, types[stored_types[field]]) for field in stored_types]
            )
        except FileNotFoundError:
            raise DataError(f"{folder} holds no index: it has no {DETAILS}.") from None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}). Embed again.") from error
        if kind != cls.kind:
            raise DataError(f"{folder} holds a {kind!r} index, but {cls.kind!r} was wanted.")
        if "://" not in uri and not Path(uri).exists():
            raise DataError(f"{path} names {uri}, which is not there. Put it back or embed again.")
        index = cls(dimension, f"{uri}#{name}")
        index._ids, index._ready = None, True
        with index._telling():
            if not index._client.has_collection(name):
                raise DataError(f"{uri} has no collection {name}. Was it dropped? Embed again.")
            index._client.load_collection(name)
            count = index._count()
        if count != expected:
            raise DataError(
                f"the collection {name} at {uri} holds {count:,} documents, but "
                f"{expected:,} were saved. Others have changed it: embed again."
            )
        if fields is not None:
            index._types = Attributes(pa.schema(fields).empty_table())
        return index

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn an error of the server's into one that says what to do."""
        with quiet() as failures:
            try:
                yield
            except failures as error:
                raise DataError(
                    f"Milvus at {self.uri} refuses ({reason(error)}). What it holds of "
                    f"{self.collection or 'the index'} stays: when this is mended, run the same "
                    "command again."
                ) from error

    def _count(self) -> int:
        rows = self._client.query(
            self.collection, filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        return int(rows[0]["count(*)"])

    def _present(self, ids: Sequence[str]) -> set[str]:
        """Return those of some documents that the collection holds."""
        present: set[str] = set()
        with self._telling():
            for batch in _slices(ids, BATCH_ROWS):
                rows = self._client.query(
                    self.collection,
                    filter=_among(batch),
                    output_fields=[ID],
                    consistency_level="Strong",
                )
                present |= {row[ID] for row in rows}
        return present

    def _typed(self, attributes: pa.Table | None) -> pa.Table:
        """Return the attributes in the types of those before, none as a table of no columns."""
        from retrodistill.data.filters import Attributes

        if attributes is None:
            return pa.table({})
        new = Attributes.from_table(attributes)
        return (new if self._types is None else self._types.append(new)).table

    def _open_collection(
        self, ids: Sequence[str], vectors: NDArray[np.float32], types: pa.Schema
    ) -> None:
        """Make the collection, or take the one that an interrupted command has left."""
        from retrodistill.data.filters import Attributes

        if self._ready:
            return
        schema = schema_of(self._client, self.dimension, types)
        if not self._named:
            written = [f"{column.name} {column.type}" for column in types]
            self.collection = (
                "retrodistill_filling_"
                + digest(str(self.dimension), *written, "", *ids, vectors.tobytes())[:16]
            )
        if self._client.has_collection(self.collection):
            self._refuse_other_fields(schema)
            self._client.load_collection(self.collection)
            count = self._count()
            self._unsure = count > 0
            if count:
                log.info(f"{count:,} documents are in Milvus already: they are not sent again.")
        else:
            params = self._client.prepare_index_params()
            lite = "lite" in str(self._client.get_server_version()).lower()
            params.add_index(VECTOR, index_type="FLAT" if lite else "AUTOINDEX", metric_type="IP")
            self._client.create_collection(
                self.collection, schema=schema, index_params=params, consistency_level="Strong"
            )
        self._types = Attributes(types.empty_table()) if len(types) else None
        self._ready = True

    def _refuse_other_fields(self, schema: Any) -> None:
        """Raise ConfigError if the collection that is there has other fields."""
        existing = {
            field["name"]: (field["type"], field["params"].get("dim"))
            for field in self._client.describe_collection(self.collection)["fields"]
        }
        expected = {field.name: (field.dtype, field.params.get("dim")) for field in schema.fields}
        if existing != expected:
            raise ConfigError(
                f"{self.uri} has a collection {self.collection} of other fields "
                f"({', '.join(existing)}). Drop it there, or name another behind a #."
            )

    def _send(self, ids: list[str], vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        """Insert documents, but those that are there, in messages of a bounded size."""
        size = (vectors.nbytes + attributes.nbytes + sum(map(len, ids))) // len(ids)
        attribute_rows = plain_rows(attributes) if attributes.num_columns else [{} for _ in ids]
        for batch in _slices(range(len(ids)), min(BATCH_ROWS, max(1, BATCH_BYTES // size))):
            rows = [{ID: ids[at], VECTOR: vectors[at], **attribute_rows[at]} for at in batch]
            if self._unsure and self._ids is not None:
                rows = self._not_there(rows, attributes.column_names)
            if rows:
                self._client.insert(self.collection, rows)

    def _not_there(self, rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
        """Return the documents that the collection lacks.

        Raises:
            DataError: it holds one with another vector or other attributes.

        """
        records = self._client.query(
            self.collection,
            filter=_among([row[ID] for row in rows]),
            output_fields=[VECTOR, *names],
            consistency_level="Strong",
        )
        by_id = {row[ID]: row for row in records}
        for row in rows:
            old = by_id.get(row[ID])
            if old is None:
                continue
            same = np.array_equal(np.asarray(old[VECTOR], np.float32), row[VECTOR])
            if not same or any(_plain(old.get(name)) != row[name] for name in names):
                raise DataError(
                    f"the collection {self.collection} at {self.uri} holds another document of "
                    f"the id {row[ID]!r}. Drop it there, or name another behind a #."
                )
        return [row for row in rows if row[ID] not in by_id]

    def _found(
        self, queries: NDArray[np.float32], k: int, text: str
    ) -> list[list[tuple[str, float]]]:
        """Return ids and scores for each query."""
        if k > MOST_HITS:
            raise ConfigError(
                f"Milvus returns at most {MOST_HITS:,} documents a query, but {k:,} are wanted. "
                "Lower --k, or use an index of this machine."
            )
        with self._telling():
            response = self._client.search(
                self.collection,
                data=list(queries),
                anns_field=VECTOR,
                limit=k,
                filter=text,
                output_fields=[ID],
                search_params={"metric_type": "IP"},
                consistency_level="Strong",
            )
        return [[(hit[ID], float(hit["distance"])) for hit in hits] for hits in response]

    def _refuse_present(self, ids: Sequence[str]) -> None:
        """Raise DataError if an opened collection holds one of these documents already."""
        present = self._present(ids) if self._ids is None else set()
        if present:
            name = next(name for name in ids if name in present)
            raise DataError(f"id {name!r} is a duplicate; nothing was added.")


def _among(ids: Sequence[str]) -> str:
    from retrodistill.data.filters import Among, milvus_filter

    return milvus_filter(Among(ID, tuple(ids)))


def _plain(value: Any) -> Any:
    """Return a value of a field as Python has it: lists come as another kind of sequence."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return list(value)


def _slices(values: Any, size: int) -> Iterator[Any]:
    """Yield a sequence in pieces."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
