"""From documents to queries with judgements, and from queries or documents to a collection."""

from retrodistill.stages.generating.generate import generate_queries
from retrodistill.stages.generating.queries import GeneratedQueries, GeneratedQuery
from retrodistill.stages.generating.texts import GeneratedTexts, generate_texts

__all__ = [
    "GeneratedQueries",
    "GeneratedQuery",
    "GeneratedTexts",
    "generate_queries",
    "generate_texts",
]
