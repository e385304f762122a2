"""From a collection to an index (`embedding`), from a query to documents (`searcher`)."""

from retrodistill.searching.embedding import embed_collection
from retrodistill.searching.grouping import document_of, documents
from retrodistill.searching.searcher import SPLIT, Hit, Searcher, hits_of, search_run

__all__ = [
    "SPLIT",
    "Hit",
    "Searcher",
    "document_of",
    "documents",
    "embed_collection",
    "hits_of",
    "search_run",
]
