"""Word (.docx) by python-docx: paragraphs and tables in order, in sections by heading."""

import io
from collections.abc import Iterator

from retrodistill.base.errors import MissingExtra
from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.datasets.readers.base import (
    Document,
    SkippedFileError,
    SourceFile,
    one_document,
)


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the document of a file; its title is from its properties, or its first heading.

    Raises:
        MissingExtra: python-docx is not installed.
        SkippedFileError: it is damaged, or has no text.

    """
    try:
        import docx
        from docx.table import Table
    except ImportError as error:
        raise MissingExtra(
            ".docx files need python-docx. Install it: pip install 'retrodistill[documents]'"
        ) from error
    content = file.content()
    sections: list[TextSection] = []
    heading, paragraphs = "", [""]
    try:
        document = docx.Document(io.BytesIO(content))
        for block in document.iter_inner_content():
            if isinstance(block, Table):
                paragraphs += [" | ".join(cell.text for cell in row.cells) for row in block.rows]
            elif ((block.style and block.style.name) or "").startswith(("Heading", "Title")):
                sections.append(TextSection(heading, "\n\n".join(paragraphs)))
                heading, paragraphs = block.text, []
            else:
                paragraphs.append(block.text)
        title = document.core_properties.title
    except Exception:  # python-docx may raise any exception for a damaged file
        raise SkippedFileError("damaged") from None
    sections.append(TextSection(heading, "\n\n".join(paragraphs)))
    first_heading = next((section.heading for section in sections if section.heading), "")
    return one_document(title or first_heading or file.stem, sections)
