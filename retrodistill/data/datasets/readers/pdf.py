"""PDF, by pypdf: the text of its pages; a scanned page has none."""

import io
import logging
import re
from collections.abc import Iterator

from retrodistill.base.errors import MissingExtra
from retrodistill.data.datasets.passages import Section
from retrodistill.data.datasets.readers.base import (
    Document,
    SkippedFileError,
    SourceFile,
    one_document,
)

HYPHEN = re.compile(r"(?<=[a-zß-ÿ])-\n(?=[a-zß-ÿ])")


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the document of a file; its title is that of its metadata.

    Raises:
        MissingExtra: pypdf is not installed.
        SkippedFileError: it is damaged, locked by a password, or has no text.

    """
    try:
        import pypdf
    except ImportError as error:
        raise MissingExtra(
            "PDF files need pypdf. Install it: pip install 'retrodistill[documents]'"
        ) from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs each oddity of a file
    content = file.content()
    try:
        pdf = pypdf.PdfReader(io.BytesIO(content))
        if pdf.is_encrypted and not pdf.decrypt(""):
            raise SkippedFileError("locked by a password")
        title = str(pdf.metadata.title or "") if pdf.metadata else ""
        pages = [page.extract_text() for page in pdf.pages]
    except SkippedFileError:
        raise
    except Exception as error:  # a damaged file may raise anything there
        if isinstance(error, pypdf.errors.DependencyError):
            raise SkippedFileError("encrypted: pip install 'pypdf[crypto]'") from None
        raise SkippedFileError("damaged") from None
    text = HYPHEN.sub("", "\n\n".join(pages))
    return one_document(title or file.stem, [Section("", text)])
