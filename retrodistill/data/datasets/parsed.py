"""Cache of parsed PDF and Word files, which are slow to read: each file is parsed once."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from retrodistill.base.files import write_atomically
from retrodistill.base.manifest import cache_folder, digest
from retrodistill.data.datasets.cache import file_key
from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.datasets.readers import Document, SourceFile

SLOW = (".pdf", ".docx")


def parsed_once(
    file: SourceFile, read: Callable[[SourceFile], Iterator[Document]], edition: str
) -> Iterator[Document]:
    """Yield the documents of a file from the cache, or read the file and cache them.

    `edition` must change whenever the reader gives another result for the same file.
    """
    key = digest(edition, *map(_printable, (file.name, *file_key(file.path))))
    path = cache_folder("parsed") / key[:2] / f"{key[2:34]}.json"
    stored = _stored(path)
    if stored is None:
        stored = list(read(file))
        rows = [asdict(document) for document in stored]
        write_atomically(path, json.dumps(rows).encode())
    yield from stored


def _stored(path: Path) -> list[Document] | None:
    """Return the documents in a cached file, or None if it is absent or damaged."""
    try:
        rows = json.loads(path.read_bytes())
        return [
            Document(row["title"], [TextSection(**section) for section in row["sections"]])
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
