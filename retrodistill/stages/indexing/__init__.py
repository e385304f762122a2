"""From a collection and a student to an index folder."""

from retrodistill.stages.indexing.embedding import embed_collection

__all__ = ["embed_collection"]
