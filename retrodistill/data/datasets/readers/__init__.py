"""Readers of document files, one a file type: titles, headings and texts of their documents."""

from retrodistill.data.datasets.readers.base import Document, SkippedFileError, SourceFile

__all__ = ["Document", "SkippedFileError", "SourceFile"]
