"""Plain text: one section without a heading."""

from collections.abc import Iterator

from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.datasets.readers.base import Document, SourceFile, one_document


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the document of a text file; its title is the file's name."""
    return one_document(file.stem, [TextSection("", file.text())])
