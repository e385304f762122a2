"""Input and output of a reader: a source file, and its documents."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.lines import DAMAGE, opened

MOST_BYTES = 64 << 20
"""A larger file is skipped, unless it is a table, which is read row by row."""

CONTROL = bytes({*range(32)} - set(b"\t\n\f\r\b\x1b"))
"""Bytes that do not occur in text, in any encoding but UTF-16."""

PROBED = 1 << 16


class SkippedFileError(Exception):
    """A file that cannot be read; the message is a short reason, such as `binary`."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a file: the only one, or one of several rows of a table."""

    title: str
    sections: Sequence[TextSection]
    row: str = ""
    """Id within the file; empty for a file that is one document."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The other columns of its row."""


@dataclass(slots=True)
class SourceFile:
    """A file to be read."""

    path: Path
    name: str
    """Its path relative to the folder, with slashes: the id of its document."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns of `id`, `title` and `text`, where the user named them."""

    note: Callable[[str], None] = lambda what: None
    """Counts this file under a reason for the log: `not UTF-8, read as Windows-1252`."""

    say: Callable[[str], None] = lambda message: None
    """Logs a message once, however many files cause it."""

    @property
    def stem(self) -> str:
        """The name without the suffix: the title of a document that has none."""
        return re.sub(r"(\.[A-Za-z]\w{0,8}|\.\d[a-z]*)?(\.gz)?$", "", self.name) or self.name

    def content(self) -> bytes:
        """Return the bytes of the file, decompressed.

        Raises:
            SkippedFileError: it is empty, damaged, or too large.

        """
        try:
            with opened(self.path) as stream:
                content = stream.read(MOST_BYTES + 1)
        except DAMAGE:
            raise SkippedFileError("damaged") from None
        except OSError as error:
            raise SkippedFileError(f"unreadable: {error.strerror}") from None
        if len(content) > MOST_BYTES:
            raise SkippedFileError(f"over {MOST_BYTES >> 20} MB")
        if not content.strip():
            raise SkippedFileError("empty")
        return content

    def text(self) -> str:
        """Return the text of the file: UTF-8, UTF-16 with a byte order mark, or else Windows-1252.

        Raises:
            SkippedFileError: it is empty, damaged, too large, or binary.

        """
        content = self.content()
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return content.decode("utf-16", errors="replace")
        probe = content[:PROBED]
        if b"\0" in probe or len(probe) - len(probe.translate(None, CONTROL)) > len(probe) // 50:
            raise SkippedFileError("binary")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.note("not UTF-8, read as Windows-1252")
            return content.decode("cp1252", errors="replace")


def one_document(title: str, sections: Sequence[TextSection]) -> Iterator[Document]:
    """Yield the document of a file, without its empty sections.

    Raises:
        SkippedFileError: no section has text.

    """
    filled = [section for section in sections if section.text.strip()]
    if not filled:
        raise SkippedFileError("without text")
    yield Document(" ".join(title.split()), filled)
