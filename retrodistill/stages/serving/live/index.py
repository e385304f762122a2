"""An index folder that is searched while its documents change.

The folder itself never changes. What is put and deleted goes into a log (`change_log`), is on the
disk before it is acknowledged, and is applied to the index in memory; opening the folder again
applies the log again. So a later word wins: what the log says of a document stands against what an
index that was embedded since holds of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError, DataError, RetrodistillError
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest, digest
from retrodistill.base.types import Encoder, doc_fingerprint_of
from retrodistill.models.indexes.base import VectorIndex
from retrodistill.models.indexes.folder import KIND
from retrodistill.models.indexes.planning import Where
from retrodistill.models.indexes.validation import checked_documents
from retrodistill.models.students.truncated import Truncated
from retrodistill.stages.searching.searcher import RetrieverSearcher, Searcher
from retrodistill.stages.serving.live.change_log import FILE, ChangeLog, Latest, Origin, Put
from retrodistill.stages.serving.live.documents import (
    Document,
    attribute_rows,
    check_documents,
    check_id,
    fitting_fields,
)
from retrodistill.stages.serving.live.read_write_lock import ReadWriteLock

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts
    from retrodistill.data.filters import Attributes

Vectors = NDArray[np.float32]

NO_FOLDER = "the server was started without a folder for them. Start it with --changes FOLDER."


class IndexClosedError(RetrodistillError):
    """A change came to an index that was closed, or whose log another one has taken over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a request has changed."""

    documents: int
    """Documents in the index after it."""
    added: int = 0
    replaced: int = 0
    deleted: int = 0
    unknown: list[str] = field(default_factory=list)
    """Ids to delete that were not in the index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settings:
    """How a folder is opened."""

    folder: Path
    name: str
    changes: Path | None
    data: str | None
    precision: Precision
    query_model: "str | Path | None"


class LiveIndex:
    """An index folder that is searched while its documents change.

    Threads may call it at the same time: searches run side by side; a change waits for those that
    run, and holds up new ones while it is applied in memory, not while the disk is written. A
    search sees all of a request's changes or none. To search and then ask for texts or vectors of
    the same moment, do both within `reading()`.

    Make one with `open`.
    """

    def __init__(self, searcher: Searcher, settings: _Settings, changes: ChangeLog | None) -> None:
        self.searcher = searcher
        """Its index may be searched directly only within `reading()`."""
        self.name = settings.name
        self.version = 0
        """Grows with each change."""
        self._settings = settings
        self._lock = ReadWriteLock()
        self._changing = Lock()
        self._log = changes
        self._closed = False
        self._changed: dict[str, Document | None] = {}
        """Id of each document that was changed -> what it is now (None: deleted)."""

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        name: str,
        changes: Path | None = None,
        data: str | None = None,
        precision: Precision = "auto",
        query_model: "str | Path | None" = None,
    ) -> "LiveIndex":
        """Return the index of a folder, with the changes that were made under this name.

        They are in the folder `changes/name`; without `changes`, nothing can be changed. Documents'
        texts come from the collection `data`, else from the one that the index names.

        Vectors of changed documents are used again as long as the document side of the model is
        the one that made them; else the documents are encoded again.

        Raises:
            ConfigError: `changes` cannot be written, is in use, or holds documents for a kind of
                index that takes none; `data` is another collection; `query_model` does not fit.
            DataError: the folder or the log of changes is damaged.

        """
        settings = _Settings(
            folder=Path(folder),
            name=name,
            changes=None if changes is None else Path(changes),
            data=data,
            precision=precision,
            query_model=query_model,
        )
        searcher = _opened(settings)
        refusal = _refusal(searcher)
        if changes is None or refusal:
            if changes is not None:
                _refuse_lost_changes(_log_folder(settings), refusal)
            return cls(searcher, settings, None)
        changes_log = ChangeLog.open(_log_folder(settings), _origin(searcher))
        try:
            return cls._caught_up(searcher, settings, changes_log, {})
        except BaseException:
            changes_log.close()
            raise

    def reopened(self, folder: Path | None = None) -> "LiveIndex":
        """Open the folder, or another one, with all changes, and take over the log.

        This index serves searches until the new one is returned and after, and changes until the
        new one has caught up; from then on a change here raises `IndexClosedError`. Rows of
        replaced documents are gone in the new one.

        Raises:
            IndexClosedError: this index was closed.
            ConfigError: as in `open`; this index serves as before.
            DataError: as in `open`; this index serves as before.

        """
        settings = self._settings
        if folder is not None:
            settings = _Settings(
                folder=Path(folder),
                name=settings.name,
                changes=settings.changes,
                data=settings.data,
                precision=settings.precision,
                query_model=settings.query_model,
            )
        searcher = _opened(settings)
        encoded: dict[str, Vectors] = {}
        if self._log is not None:  # most of them while changes still come
            with self._changing:
                self._check_open()
                latest = self._log.latest()
            _fitting_vectors(searcher, self._log.origin, latest, encoded)
        with self._changing:
            self._check_open()
            if self._log is None:
                new = LiveIndex(searcher, settings, None)
            elif refusal := _refusal(searcher):
                raise ConfigError(f"{settings.folder} takes no changes, but has some: {refusal}")
            else:
                new = LiveIndex._caught_up(searcher, settings, self._log, encoded)
            new.version = self.version + 1
            self._log, self._closed = None, True
        return new

    @classmethod
    def _caught_up(
        cls,
        searcher: Searcher,
        settings: _Settings,
        changes: ChangeLog,
        encoded: dict[str, Vectors],
    ) -> "LiveIndex":
        """Return the index with what its log says, and a log without what is superseded."""
        index = searcher.index
        assert isinstance(index, VectorIndex)
        origin, latest = _origin(searcher), changes.latest()
        _log_moved(changes, origin)
        latest = _fitting_vectors(searcher, changes.origin, latest, encoded)
        puts = [put for put in latest.values() if put is not None]
        index.delete([id for id, put in latest.items() if put is None and id in index])
        if puts:
            docs, misfits = fitting_fields([put.doc for put in puts], index.schema)
            for name, count in misfits.items():
                log.warning(
                    f"{settings.name}: field {name!r} of {count:,} changed documents does not fit "
                    "the attributes of the index: conditions take it for missing."
                )
            vectors = np.stack([put.vector for put in puts])
            index.replace([doc.id for doc in docs], vectors, attribute_rows(docs, index.schema))
        if puts or latest:
            log.info(
                f"{settings.name}: {len(puts):,} documents put and {len(latest) - len(puts):,} "
                f"deleted since it was embedded, from {changes.path}."
            )
        live = cls(searcher, settings, changes)
        live._changed = {id: None if put is None else put.doc for id, put in latest.items()}
        live.version = changes.number
        _tidy(changes, origin, latest)  # last, for after it the former vectors are gone
        return live

    @property
    def encoder(self) -> Encoder | None:
        """What reads documents and queries; None for an index of another kind than dense."""
        return None if isinstance(self.searcher, RetrieverSearcher) else self.searcher.encoder

    @property
    def refusal(self) -> str:
        """Why documents cannot be changed; empty if they can."""
        return _refusal(self.searcher) or ("" if self._settings.changes is not None else NO_FOLDER)

    @property
    def has_texts(self) -> bool:
        """Whether the texts of the documents that were embedded are at hand."""
        return self.searcher.docs is not None

    def __len__(self) -> int:
        with self.reading():
            return self._count()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let nothing change within the block: what is read there is of one moment.

        Keep it short: no forward pass, and no change, which would wait for itself.
        """
        with self._lock.reading():
            yield

    def search(
        self, vectors: Vectors, k: int, *, where: Where = None
    ) -> tuple[list[list[str]], list[Vectors]]:
        """Return for each query vector its best ids and their inner products, best first.

        As `Index.search` does, in the same moment for all queries.

        Raises:
            ConfigError: it is not an index of dense vectors, or a condition does not fit.
            DataError: a wrong shape, NaN or infinity.

        """
        self._check_dense()
        with self.reading():
            return self.searcher.index.search(vectors, k, where=where)

    def put(self, docs: Sequence[Document], vectors: Vectors) -> Change:
        """Add documents, in place of those with the same ids, whose vectors have shape (N, D).

        All of them or none; they are on the disk and searched when it returns.

        Raises:
            ConfigError: nothing can be changed, or the disk cannot be written.
            DataError: a document or vector that does not fit; the message names the document.
            IndexClosedError: the index was closed or taken over.

        """
        docs = list(docs)
        check_documents(docs)
        ids = [doc.id for doc in docs]
        with self._changing:
            changes, index = self._writable()
            rows = attribute_rows(docs, index.schema)
            checked = checked_documents(ids, vectors, index.dimension, ())
            if not docs:
                return Change(documents=len(index))
            changes.put(docs, checked)
            with self._applying(changes):
                replaced = index.replace(ids, checked, rows)
                self._changed.update(zip(ids, docs, strict=True))
                self.version += 1
                total = len(index)
        return Change(documents=total, added=len(docs) - replaced, replaced=replaced)

    def delete(self, ids: Sequence[str]) -> Change:
        """Delete documents, but for those that are not in the index.

        They are gone, on the disk too, when it returns.

        Raises:
            ConfigError: nothing can be changed, or the disk cannot be written.
            DataError: an id that is empty or not a string.
            IndexClosedError: the index was closed or taken over.

        """
        ids = list(ids)
        for position, id in enumerate(ids):
            check_id(id, position)
        ids = list(dict.fromkeys(ids))
        with self._changing:
            changes, index = self._writable()
            known = [id for id in ids if id in index]
            unknown = [id for id in ids if id not in index]
            if not known:
                return Change(documents=len(index), unknown=unknown)
            changes.delete(known)
            with self._applying(changes):
                index.delete(known)
                self._changed.update(dict.fromkeys(known))
                self.version += 1
                total = len(index)
        return Change(documents=total, deleted=len(known), unknown=unknown)

    def doc(self, id: str) -> Document | None:
        """Return a document; None if it was deleted or never there."""
        return self.docs([id])[0]

    def docs(self, ids: Sequence[str]) -> list[Document | None]:
        """Return documents, with None for an id that was deleted or never there.

        Title and text are empty where the texts are not at hand. Fields are the attributes that
        are not missing; times are `datetime`.
        """
        with self.reading():
            present = [id for id in dict.fromkeys(ids) if self._holds(id)]
            texts = self._texts_of(present)
            fields = self._fields_of(present)
        docs = {
            id: Document(id, *texts.get(id, ("", "")), own)
            for id, own in zip(present, fields, strict=True)
        }
        return [docs.get(id) for id in ids]

    def vector(self, id: str) -> Vectors | None:
        """Return the vector of a document, shape (D,); None if it was deleted or never there.

        The index gives it back, as exactly as its kind holds it; where it cannot (Milvus, some
        lines of `faiss:`), the document's text is encoded again.

        Raises:
            ConfigError: it is not an index of dense vectors, or its text would be needed but is
                not at hand.

        """
        self._check_dense()
        with self.reading():
            index = self.searcher.index
            if not self._holds(id):
                return None
            if isinstance(index, VectorIndex):
                try:
                    vector: Vectors = index.vectors_of([id])[0]
                    return vector
                except DataError:
                    pass
            doc = self.doc(id)
        if doc is None or not doc.full_text:
            raise ConfigError(
                f"the index cannot return the vector of {id!r}, nor is its text at hand. Give the "
                "collection with --data."
            )
        encoded: Vectors = self.searcher.encoder.encode_docs([doc.full_text])[0]
        return encoded

    def texts(self) -> Iterator[tuple[str, str]]:
        """Return the id and the full text of each document as they are now, in a fixed order.

        Changes that come while they are read do not show. Read `version` before: if it has not
        grown afterwards, these are the texts of that version.

        Raises:
            ConfigError: the texts are not at hand.

        """
        if self.searcher.docs is None:
            raise ConfigError(
                f"the texts of {self.name} are not at hand. Give their collection with --data."
            )
        with self.reading():
            changed = dict(self._changed)
        return _texts(self.searcher.docs, changed)

    @property
    def attributes(self) -> "Attributes | None":
        """The attributes of all documents as they are now; None if the index has none."""
        index = self.searcher.index if self.encoder is not None else None
        if not isinstance(index, VectorIndex):
            return None
        with self.reading():
            return index.attributes

    @property
    def deleted_rows(self) -> int:
        """Rows of replaced and deleted documents that take memory until it is opened again."""
        index = self.searcher.index if self.encoder is not None else None
        return index.deleted_rows if isinstance(index, VectorIndex) else 0

    def close(self) -> None:
        """Let another process change the documents; searches may go on."""
        with self._changing:
            if self._log is not None:
                self._log.close()
            self._log, self._closed = None, True

    @contextmanager
    def _applying(self, changes: ChangeLog) -> Iterator[None]:
        """Hold the index alone; if the change that is logged cannot be applied, undo the log."""
        try:
            with self._lock.writing():
                yield
        except BaseException:
            changes.undo()
            raise

    def _writable(self) -> tuple[ChangeLog, VectorIndex]:
        self._check_open()
        if self.refusal:
            raise ConfigError(f"the documents of {self.name} cannot be changed: {self.refusal}")
        index = self.searcher.index
        assert self._log is not None
        assert isinstance(index, VectorIndex)
        return self._log, index

    def _check_open(self) -> None:
        if self._closed:
            raise IndexClosedError(f"{self.name} was closed, or opened again: use the new one.")

    def _check_dense(self) -> None:
        if self.encoder is None:
            raise ConfigError(
                f"{self.name} holds no dense vectors: it is searched by text (`searcher.find`)."
            )

    def _count(self) -> int:
        if isinstance(self.searcher, RetrieverSearcher):
            return len(self.searcher.ids)
        return len(self.searcher.index)

    def _holds(self, id: str) -> bool:
        """Return whether a document is there; Milvus is not asked, but the texts are."""
        if isinstance(self.searcher, RetrieverSearcher):
            return id in self.searcher.ids
        index = self.searcher.index
        if isinstance(index, VectorIndex):
            return id in index
        return self.searcher.docs is None or id in self.searcher.docs

    def _texts_of(self, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return title and text of documents that are there, as far as they are at hand."""
        texts = {}
        for id in ids:
            if (doc := self._changed.get(id)) is not None:
                texts[id] = doc.title, doc.text
        if self.searcher.docs is not None and len(texts) < len(ids):
            base = pa.chunked_array([[id for id in ids if id not in texts]], pa.string())
            docs, _ = self.searcher.docs.distinct(base)
            texts |= {doc.id: (doc.title, doc.text) for doc in docs}
        return texts

    def _fields_of(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        index = self.searcher.index if self.encoder is not None else None
        table = index.attributes_of(ids) if isinstance(index, VectorIndex) else None
        rows = [{} for _ in ids] if table is None else table.to_pylist()
        return [{name: v for name, v in row.items() if v is not None} for row in rows]


def _texts(docs: "Texts", changed: dict[str, Document | None]) -> Iterator[tuple[str, str]]:
    for doc in docs:
        if doc.id not in changed:
            yield doc.id, doc.full_text
    for id, put in changed.items():
        if put is not None:
            yield id, put.full_text


def _opened(settings: _Settings) -> Searcher:
    """Return the searcher of the folder, with the texts of `data` if that is given."""
    docs = None
    if settings.data is not None:
        from retrodistill.data.datasets.collection import load_docs

        manifest = Manifest.read(settings.folder, kind=KIND)
        docs = load_docs(settings.data)
        if docs.fingerprint != manifest.inputs.get("docs"):
            raise ConfigError(
                f"--data {settings.data} holds other documents than {settings.folder} was embedded "
                f"from ({manifest.details.get('data', 'unknown')}): their texts would be those of "
                "others. Give that collection, or embed this one."
            )
    return Searcher.open(
        settings.folder, precision=settings.precision, query_model=settings.query_model, docs=docs
    )


def _refusal(searcher: Searcher) -> str:
    """Return why the documents of a kind of index cannot be changed, or nothing."""
    if isinstance(searcher, RetrieverSearcher):
        return "sparse and late-interaction indexes take none. Embed the collection again."
    if not isinstance(searcher.index, VectorIndex):
        return "its vectors are in Milvus. Change them there, or embed with another --index."
    return ""


def _log_folder(settings: _Settings) -> Path:
    assert settings.changes is not None
    if Path(settings.name).name != settings.name or settings.name in ("", ".."):
        raise ConfigError(
            f"changes of an index are in a folder of its name, but {settings.name!r} cannot be "
            "one. Give another name with --index NAME=FOLDER."
        )
    return settings.changes / settings.name


def _refuse_lost_changes(folder: Path, refusal: str) -> None:
    """Raise ConfigError if there are changes that the index would not serve."""
    if (folder / FILE).exists():
        raise ConfigError(
            f"{folder} holds changes of documents, but this index cannot serve them: {refusal} "
            "Or start without --changes, and without these documents."
        )


def _origin(searcher: Searcher) -> Origin:
    assert searcher.manifest is not None
    manifest = searcher.manifest
    collection = str(manifest.details.get("collection", ""))
    return Origin(manifest.fingerprint, document_side(searcher.encoder), collection)


def document_side(encoder: Encoder) -> str:
    """Return a hash of what shapes the vector of a document, but for the number type.

    A GPU's bfloat16 and a processor's float32 give vectors of one space.
    """
    whole = encoder.encoder if isinstance(encoder, Truncated) else encoder
    in_dtype = getattr(whole, "doc_fingerprint_in", None)
    side = in_dtype("float32") if in_dtype is not None else doc_fingerprint_of(whole)
    return digest(side, str(encoder.dimension))


def _tidy(changes: ChangeLog, origin: Origin, latest: Latest) -> None:
    """Write the log again if its vectors are of another model, or most of it is superseded."""
    encoded_again = changes.origin.encoder != origin.encoder
    if not encoded_again and changes.entries <= 2 * len(latest):
        return
    try:
        changes.rewrite(origin, latest)
    except OSError as error:
        if encoded_again:
            raise ConfigError(
                f"{changes.path} cannot be written ({error.strerror}). Is the disk full?"
            ) from error
        log.warning(f"{changes.path} cannot be made smaller ({error.strerror}): used as it is.")


def _log_moved(changes: ChangeLog, origin: Origin) -> None:
    """Log that the changes were made to another index than this one."""
    before = changes.origin
    if before.collection != origin.collection:
        log.warning(
            f"{changes.path} holds changes of an index of {before.collection}, but this is one of "
            f"{origin.collection}: its documents are added. Is the --index NAME the right one?"
        )
    elif before.index != origin.index:
        log.info(f"{changes.path}: the index was embedded again since; its changes still hold.")


def _fitting_vectors(
    searcher: Searcher, before: Origin, latest: Latest, encoded: dict[str, Vectors]
) -> Latest:
    """Return the changes with vectors of the index's space, encoding texts that lack one.

    `encoded` has vectors by full text, and gets those that are made here.
    """
    if document_side(searcher.encoder) == before.encoder:
        return latest
    puts = [put for put in latest.values() if put is not None]
    texts = list(dict.fromkeys(put.doc.full_text for put in puts))
    missing = [text for text in texts if text not in encoded]
    if missing:
        log.info(
            f"{len(missing):,} changed documents are encoded again: another model read them before."
        )
        encoded |= zip(missing, searcher.encoder.encode_docs(missing), strict=True)
    return {
        id: None if put is None else Put(put.doc, encoded[put.doc.full_text])
        for id, put in latest.items()
    }
