"""Search: answer queries on the terminal, or write a run for the queries of a split or a file.

    python -m retrodistill.search --index indexes/kl "effect of vitamin D on asthma" --k 5
    python -m retrodistill.search --index indexes/kl "asthma" --where "year >= 2020" --explain
    python -m retrodistill.search --index indexes/kl --data beir:scifact --k 100 --out runs/kl
    python -m retrodistill.search --data docs:handbook --retriever bm25 "how do I reset it"
    python -m retrodistill.search --data docs:handbook --model MODEL "how do I reset it"

A query shows rank, score, id and the document's beginning; a split or a file gives a run folder.
Without an index folder, --data is searched by --retriever or --model, whose vectors stay in the
cache.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodistill.base.command import run
from retrodistill.base.config import SearchConfig, as_dict

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run

DEEPER = 100
"""Passages that a retriever returns where one document is wanted."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(SearchConfig, search, verb="search", about=__doc__, words=words)


def search(config: SearchConfig) -> None:
    """Print the hits of the queries, or write the run of a split or a file."""
    from retrodistill.data.datasets import load_collection
    from retrodistill.stages import preflight
    from retrodistill.stages.searching.answers import index_answers, line, run_answers, with_asked

    preflight.search(config)
    if config.out is not None:
        _write(config)
        return
    collection = load_collection(config.data) if config.data is not None else None
    if config.index is not None:
        answers = index_answers(config, collection.docs if collection is not None else None)
    else:
        assert collection is not None
        collection = with_asked(collection, config)
        answers = run_answers(_retrieve(collection, config), collection, config)
    for query, hits in answers:
        print(query)
        for rank, hit in enumerate(hits, start=1):
            print(line(rank, hit))


def _write(config: SearchConfig) -> None:
    from retrodistill.data.datasets import load_collection
    from retrodistill.stages.searching import documents
    from retrodistill.stages.searching.answers import index_run

    assert config.data is not None
    assert config.out is not None
    collection = load_collection(config.data, queries=config.queries)
    if config.index is not None:
        hits, inputs, details = index_run(config, collection)
    else:
        hits, inputs, details = _retrieve(collection, config), {}, {"model": config.model}
        hits = documents(hits, config.k) if config.by_document else hits
    inputs |= {"collection": collection.fingerprint}
    details |= {"split": config.split}
    hits.write(
        config.out,
        inputs=inputs,
        config=as_dict(config),
        details=details,
        overwrite=config.overwrite,
    )
    print(config.out)


def _retrieve(collection: "Collection", config: SearchConfig) -> "Run":
    """Return the run of --retriever, or of --model, over the documents of the collection."""
    from retrodistill.stages.mining import mine_candidates
    from retrodistill.stages.searching import SPLIT

    return mine_candidates(
        collection,
        config.split if config.split or collection.file_queries else SPLIT,
        retrievers=config.retriever or (f"dense:{config.model}",),
        depth=config.k * (DEEPER if config.by_document else 1),
        precision=config.precision,
    )


if __name__ == "__main__":
    sys.exit(main())
