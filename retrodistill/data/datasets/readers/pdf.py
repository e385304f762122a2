"""PDF by pypdf: the text of the pages; scanned pages have none."""

import io
import logging
import re
from collections.abc import Iterator

from retrodistill.base.errors import MissingExtra
from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.datasets.readers.base import (
    Document,
    SkippedFileError,
    SourceFile,
    one_document,
)

HYPHEN = re.compile(r"(?<=[a-zß-ÿ])-\n(?=[a-zß-ÿ])")


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the document of a file; its title is from the metadata.

    Raises:
        MissingExtra: pypdf is not installed.
        SkippedFileError: it is damaged, password-protected, or has no text.

    """
    try:
        import pypdf
    except ImportError as error:
        raise MissingExtra(
            "PDF files need pypdf. Install it: pip install 'retrodistill[documents]'"
        ) from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs every irregularity of a file
    content = file.content()
    try:
        pdf = pypdf.PdfReader(io.BytesIO(content))
        if pdf.is_encrypted and not pdf.decrypt(""):
            raise SkippedFileError("locked by a password")
        title = str(pdf.metadata.title or "") if pdf.metadata else ""
        pages = [page.extract_text() for page in pdf.pages]
    except SkippedFileError:
        raise
    except Exception as error:  # pypdf may raise any exception for a damaged file
        if isinstance(error, pypdf.errors.DependencyError):
            raise SkippedFileError("encrypted: pip install 'pypdf[crypto]'") from None
        raise SkippedFileError("damaged") from None
    text = HYPHEN.sub("", "\n\n".join(pages))
    return one_document(title or file.stem, [TextSection("", text)])
