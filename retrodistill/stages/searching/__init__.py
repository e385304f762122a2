"""From a query to documents: `Searcher`, and the runs that it makes."""

from retrodistill.stages.searching.grouping import document_of, documents
from retrodistill.stages.searching.searcher import SPLIT, Hit, Searcher, hits_of, search_run

__all__ = [
    "SPLIT",
    "Hit",
    "Searcher",
    "document_of",
    "documents",
    "hits_of",
    "search_run",
]
