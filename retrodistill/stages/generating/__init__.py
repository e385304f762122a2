"""From documents to queries with judgements: writers, filters, and documents put aside."""

from retrodistill.stages.generating.generate import generate_queries
from retrodistill.stages.generating.queries import GeneratedQueries, GeneratedQuery

__all__ = ["GeneratedQueries", "GeneratedQuery", "generate_queries"]
