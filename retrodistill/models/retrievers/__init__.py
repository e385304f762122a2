"""First stages: what finds the top documents of a query in a whole collection.

A retriever is a class with the methods of `retrodistill.base.types.Retriever`, and a line of
`RETRIEVERS`; one of your own needs no line: `--retriever my_lab.retrievers:Mine:ARGUMENT`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.progress import bar
from retrodistill.base.registry import RETRIEVERS
from retrodistill.base.types import Retriever, RetrieverOptions
from retrodistill.data.store.runs import Run

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts

DEFAULTS = RetrieverOptions()


def load_retriever(spec: str, docs: "Texts", options: RetrieverOptions = DEFAULTS) -> Retriever:
    """Return the retriever `name` or `name:argument` over all documents.

    Raises:
        ConfigError: the name is unknown, or its argument is not what it takes.

    """
    kind, argument = RETRIEVERS.split(spec)
    retriever: Retriever = kind(argument, docs, options)
    return retriever


def retrieved_run(
    retriever: Retriever,
    collection: "Collection",
    query_ids: Sequence[str],
    *,
    k: int,
    name: str,
) -> Run:
    """Return the run of the `k` best documents for each of a collection's queries."""
    texts = collection.queries.full_texts(collection.queries.rows(query_ids))

    def lists() -> Iterator[tuple[str, list[str], NDArray[np.float32]]]:
        with bar(name, len(texts)) as advance:
            hits = retriever.top(texts, k)
            for query_id, (rows, scores) in zip(query_ids, hits, strict=True):
                yield query_id, collection.docs.ids(rows), scores
                advance(1)

    return Run.from_lists(lists(), source=name).top(k)
