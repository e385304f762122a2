"""From a collection to an index (`embedding`), from a query to documents (`searcher`)."""

from retrodistill.searching.embedding import embed_collection
from retrodistill.searching.searcher import Hit, Searcher, search_run

__all__ = ["Hit", "Searcher", "embed_collection", "search_run"]
