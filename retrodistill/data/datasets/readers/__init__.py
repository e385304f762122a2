"""Readers: from a file of documents to their titles, headings and texts, a kind of file each."""

from retrodistill.data.datasets.readers.base import Document, SkippedFileError, SourceFile

__all__ = ["Document", "SkippedFileError", "SourceFile"]
