"""The log of an index's changes: a record a request, on the disk before it is acknowledged.

A file of records behind one another: number 0 says what the log belongs to, and each later one is
a change, whole or not at all. A record is framed so that damage is never taken for the end of a log
whose writer was killed:

    head      mark, number, bytes of the payload, and a checksum of these
    payload   bytes of the JSON, the JSON, and the float32 vectors of the documents in it
    tail      a checksum of head and payload, and an end mark

An unfinished last record is cut off: the file ends within it, or zeros, which a file system may
leave after a power cut, are where its head or its end should be. Anything else that does not fit
is damage.
"""

import fcntl
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest, xxh3_128_digest

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import new_file, write_atomically
from retrodistill.base.logging import log
from retrodistill.stages.serving.live.documents import Document

FORMAT = 1
"""Version of the payloads."""
FILE, LOCK = "changes.log", "lock"
"""Files of the folder."""
MARK, END = b"RDch", b"\nRDend\n\n"
HEAD = struct.Struct("<4sQQ")
HEAD_BYTES = HEAD.size + 8
TAIL_BYTES = 16 + len(END)
JSON_BYTES = struct.Struct("<I")
BATCH = 256
"""Documents of a record in a log that is written again."""

Vectors: TypeAlias = NDArray[np.float32]


class Put(NamedTuple):
    """A document as it was put last."""

    doc: Document
    vector: Vectors


Latest: TypeAlias = dict[str, Put | None]
"""Id of each changed document -> what it is now (None: deleted), in the order of changes."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a log belongs to."""

    index: str
    """Fingerprint of the index whose documents it changes."""
    encoder: str
    """Hash of the document side that made the vectors."""
    collection: str
    """Name of the collection that was embedded."""


class ChangeLog:
    """The log in a folder, which this process alone may write.

    A method that changes it returns when the disk has it. One thread at a time may call it.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.path = folder / FILE
        self._lock = lock
        self._handle = -1
        self._start = self._end = 0
        """Where the last record starts and ends."""
        self._entries = 0
        """Documents put and deleted in all records."""
        self._last = 0
        """Those of the last record."""
        self._stopped = ""
        self.number = 0
        """Number of the last record."""
        self.origin = Origin("", "", "")

    @classmethod
    def open(cls, folder: Path, origin: Origin) -> "ChangeLog":
        """Return the log in a folder; a new one, for `origin`, if there is none.

        Raises:
            ConfigError: another process has it open, or the folder cannot be written.
            DataError: the log is damaged.

        """
        folder = Path(folder)
        try:
            _make_durable(folder)
            opened = cls(folder, _claimed(folder))
        except OSError as error:
            raise ConfigError(
                f"changes cannot be kept in {folder} ({error.strerror}). Give --changes a folder "
                "that you may write to."
            ) from error
        try:
            if not opened.path.exists():
                write_atomically(opened.path, _framed(0, _header(origin)))
            opened._reopen()
        except BaseException:
            opened.close()
            raise
        return opened

    def latest(self) -> Latest:
        """Return what has become of each changed document, from the file.

        Raises:
            DataError: the log is damaged.

        """
        latest: Latest = {}
        self._entries = 0
        for number, payload, _ in _frames(self.path):
            if number:
                content, vectors = _parsed(payload, self.path, number)
                changed: Latest = dict.fromkeys(content.get("deleted", ()))
                for row, record in enumerate(content.get("documents", ())):
                    changed[record["id"]] = Put(Document(**record), vectors[row].copy())
                for id, put in changed.items():
                    latest.pop(id, None)
                    latest[id] = put
                self._entries += len(changed)
        return latest

    @property
    def entries(self) -> int:
        """Documents that were put or deleted in all records."""
        return self._entries

    def put(self, docs: Sequence[Document], vectors: Vectors) -> None:
        """Append documents that are added or replaced, with a row of vectors each."""
        self._append(_documents(docs, vectors), len(docs))

    def delete(self, ids: Sequence[str]) -> None:
        """Append ids that are deleted."""
        self._append(_payload({"deleted": list(ids)}), len(ids))

    def undo(self) -> None:
        """Remove the record that was appended last: what it says could not be done."""
        self._cut(self._start)
        self.number -= 1
        self._entries -= self._last

    def rewrite(self, origin: Origin, latest: Latest) -> None:
        """Replace the log by one that says the same, without what is superseded."""
        with new_file(self.path) as aside, aside.open("wb") as stream:
            stream.write(_framed(0, _header(origin)))
            for number, payload in enumerate(_payloads(latest), start=1):
                stream.write(_framed(number, payload))
        self._reopen()

    def close(self) -> None:
        """Let another process open the log."""
        for handle in (self._handle, self._lock):
            if handle >= 0:
                os.close(handle)
        self._handle = self._lock = -1
        self._stopped = f"{self.path} is closed."

    def _reopen(self) -> None:
        """Read through the file, cut off what was never finished, and open it for appending."""
        start = end = 0
        for number, payload, frame_end in _frames(self.path):
            if number == 0:
                self.origin = _origin(*_parsed(payload, self.path, 0), self.path)
            self.number, start, end = number, end, frame_end
        if not end:
            raise _damaged(self.path, 0, 0)
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = os.open(self.path, os.O_RDWR)
        self._start, self._end = start, end
        unfinished = os.fstat(self._handle).st_size - end
        if unfinished:
            log.warning(
                f"{self.path}: the last {unfinished:,} bytes are a change that was not finished, "
                "and never acknowledged: they are dropped."
            )
            os.ftruncate(self._handle, end)
            os.fsync(self._handle)

    def _append(self, payload: bytes, entries: int) -> None:
        if self._stopped:
            raise ConfigError(f"documents cannot be changed: {self._stopped}")
        frame = memoryview(_framed(self.number + 1, payload))
        try:
            written = 0
            while written < len(frame):
                written += os.pwrite(self._handle, frame[written:], self._end + written)
            self._sync()
        except BaseException as error:
            self._cut(self._end)
            if isinstance(error, OSError):
                raise ConfigError(
                    f"{self.path} cannot be written ({error.strerror}); nothing was changed. Is "
                    "the disk full?"
                ) from error
            raise
        self._start, self._end = self._end, self._end + len(frame)
        self.number += 1
        self._entries += entries
        self._last = entries

    def _sync(self) -> None:
        """Wait until the disk has what was written."""
        os.fsync(self._handle)

    def _cut(self, end: int) -> None:
        """Cut the file there; if that fails, nothing is appended until it is opened again."""
        try:
            os.ftruncate(self._handle, end)
            os.fsync(self._handle)
        except OSError as error:
            self._stopped = (
                f"{self.path} could not be written ({error.strerror}), and what is on the disk is "
                "not certain. Restart the server."
            )
        self._end = end


def _frames(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Yield number, payload and end of each record, up to what was never finished.

    Raises:
        DataError: a record is damaged.

    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start = number = 0
        while len(head := stream.read(HEAD_BYTES)) == HEAD_BYTES:
            length = _length(head, number)
            if length is None:
                if _zeros(stream.read(1 << 20)) and _zeros(stream.read()):
                    return
                raise _damaged(path, number, start)
            end = start + HEAD_BYTES + length + TAIL_BYTES
            if end > size:
                return
            payload, tail = stream.read(length), stream.read(TAIL_BYTES)
            if tail.endswith(bytes(len(END))) and end == size:
                return
            if tail != xxh3_128_digest(head + payload) + END:
                raise _damaged(path, number, start)
            yield number, payload, end
            start, number = end, number + 1


def _length(head: bytes, number: int) -> int | None:
    """Return the bytes of the payload, or None if this is not the head of the expected record."""
    mark, head_number, length = HEAD.unpack(head[: HEAD.size])
    sound = head[HEAD.size :] == xxh3_64_digest(head[: HEAD.size])
    return length if sound and (mark, head_number) == (MARK, number) else None


def _zeros(content: bytes) -> bool:
    return not content.strip(b"\0")


def _damaged(path: Path, number: int, start: int) -> DataError:
    cut = (
        f"or cut it off there with `truncate --size={start} {path}`, which loses this change and "
        "all later ones."
        if number
        else "or move it away, which loses all changes."
    )
    return DataError(
        f"{path} is damaged in record {number}, at byte {start:,}: its checksum is another one. "
        f"Restore the file from a backup, {cut}"
    )


def _framed(number: int, payload: bytes) -> bytes:
    """Return a record as it is in the file."""
    head = HEAD.pack(MARK, number, len(payload))
    head += xxh3_64_digest(head)
    return head + payload + xxh3_128_digest(head + payload) + END


def _payload(content: Mapping[str, Any], vectors: bytes = b"") -> bytes:
    text = json.dumps(content, ensure_ascii=False, default=_plain).encode()
    return JSON_BYTES.pack(len(text)) + text + vectors


def _plain(value: object) -> str:
    """Return a time as it is written in JSON."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{value!r} has no form in JSON")


def _documents(docs: Sequence[Document], vectors: Vectors) -> bytes:
    records = [
        {"id": doc.id, "title": doc.title, "text": doc.text, "fields": dict(doc.fields)}
        for doc in docs
    ]
    matrix = np.ascontiguousarray(vectors, "<f4")
    return _payload({"documents": records, "dimension": matrix.shape[1]}, matrix.tobytes())


def _payloads(latest: Latest) -> Iterator[bytes]:
    """Yield the records of a log that holds this and nothing else."""
    deleted = [id for id, put in latest.items() if put is None]
    puts = [put for put in latest.values() if put is not None]
    if deleted:
        yield _payload({"deleted": deleted})
    for start in range(0, len(puts), BATCH):
        docs, vectors = zip(*puts[start : start + BATCH], strict=True)
        yield _documents(docs, np.stack(vectors))


def _header(origin: Origin) -> bytes:
    return _payload({"format": FORMAT, **asdict(origin)})


def _parsed(payload: bytes, path: Path, number: int) -> tuple[dict[str, Any], Vectors]:
    """Return the JSON of a record and its vectors, a row a document."""
    (length,) = JSON_BYTES.unpack_from(payload)
    try:
        content = json.loads(payload[JSON_BYTES.size : JSON_BYTES.size + length])
        vectors = np.frombuffer(payload, "<f4", offset=JSON_BYTES.size + length)
        return content, vectors.reshape(-1, content.get("dimension", 1)).astype(np.float32)
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: record {number} is of another version ({error}).") from error


def _origin(content: Mapping[str, Any], _: Vectors, path: Path) -> Origin:
    if content.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {content.get('format')}, but this version reads {FORMAT}. Use the "
            "version that wrote it, or put the documents into a new --changes folder."
        )
    return Origin(*(content[name] for name in ("index", "encoder", "collection")))


def _claimed(folder: Path) -> int:
    """Return the open lock of a folder; the system releases what a killed process held.

    Raises:
        ConfigError: another process holds it.

    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 20).decode(errors="replace").strip()
        os.close(handle)
        raise ConfigError(
            f"{folder} is in use by process {holder or 'unknown'}: one server at a time writes the "
            "changes of an index. Stop it, or give this one another --changes folder."
        ) from None
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _make_durable(folder: Path) -> None:
    """Make a folder, and flush its entry and those of new folders above it to the disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
