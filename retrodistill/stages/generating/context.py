"""Queries with what a retriever found for them: a view of a collection, for a teacher to read."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from retrodistill.base.logging import log

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run


def queries_with_context(
    collection: "Collection", run: "Run", *, docs: int = 3, words: int = 24
) -> Iterator[str]:
    """Yield every query as a line of queries.VIEW.jsonl, followed by its best documents in a run.

    Each document is a line of the text, title first, cut after `words` words. Queries that the run
    lacks keep their text alone; their number is logged.

    Raises:
        DataError: the run has a query or a document that the collection lacks.

    Source: the retrieval-augmented teacher of Srinivasan et al. 2022, arXiv:2210.15718 (QUILL), who
    give it titles and addresses of web pages.

    """
    best = run.top(docs)
    collection.queries.rows(best.query_ids)
    retrieved = {query: list(ids) for query, ids, _ in best.lists()}
    if alone := len(collection.queries) - len(retrieved):
        log.info(
            f"{alone:,} of {len(collection.queries):,} queries are not in the run: no context."
        )
    for query in collection.queries:
        rows = collection.docs.rows(retrieved.get(query.id, []))
        passages = [" ".join(text.split()[:words]) for text in collection.docs.full_texts(rows)]
        row = {"_id": query.id, "text": "\n".join([query.text, *passages])}
        yield json.dumps(row, ensure_ascii=False)
