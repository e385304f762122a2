"""Word's .docx, by python-docx: paragraphs and tables in their order, by headings."""

import io
from collections.abc import Iterator

from retrodistill.base.errors import MissingExtra
from retrodistill.data.datasets.passages import Section
from retrodistill.data.datasets.readers.base import (
    Document,
    SkippedFileError,
    SourceFile,
    one_document,
)


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the document of a file; its title is that of its properties, or its first heading.

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
    sections: list[Section] = []
    heading, parts = "", [""]
    try:
        document = docx.Document(io.BytesIO(content))
        for block in document.iter_inner_content():
            if isinstance(block, Table):
                parts += [" | ".join(cell.text for cell in row.cells) for row in block.rows]
            elif ((block.style and block.style.name) or "").startswith(("Heading", "Title")):
                sections.append(Section(heading, "\n\n".join(parts)))
                heading, parts = block.text, []
            else:
                parts.append(block.text)
        title = document.core_properties.title
    except Exception:  # a damaged file may raise anything there
        raise SkippedFileError("damaged") from None
    sections.append(Section(heading, "\n\n".join(parts)))
    first = next((section.heading for section in sections if section.heading), "")
    return one_document(title or first or file.stem, sections)
