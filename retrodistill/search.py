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
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from retrodistill.command import run
from retrodistill.config import SearchConfig, as_dict
from retrodistill.progress import say

if TYPE_CHECKING:
    from retrodistill.datasets import Collection
    from retrodistill.searching import Hit, Searcher
    from retrodistill.store.runs import Run

SHOWN = 120
"""Characters of a document on the terminal."""

DEEPER = 100
"""Passages that a retriever returns where one document is wanted."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(SearchConfig, search, verb="search", about=__doc__, words=words)


def search(config: SearchConfig) -> None:
    """Print the hits of the queries, or write the run of a split or a file."""
    from retrodistill import preflight

    preflight.search(config)
    if config.out is not None:
        _write(config)
        return
    for query, hits in _answers(config):
        print(query)
        for rank, hit in enumerate(hits, start=1):
            print(line(rank, hit))


def _answers(config: SearchConfig) -> Iterator[tuple[str, list["Hit"]]]:
    """Yield each query of the command line or of the file with its hits."""
    from retrodistill.datasets import load_collection
    from retrodistill.datasets.queries import query_file, read_queries
    from retrodistill.searching import Searcher, hits_of

    queries = list(config.query)
    if config.queries is not None:
        queries = [query.text for query in read_queries(config.queries).queries]
    collection = load_collection(config.data) if config.data is not None else None
    if config.index is None:
        assert collection is not None
        asked = collection.with_queries(query_file(queries), name="the command line")
        answers = hits_of(
            retrieve(asked, config), asked.docs, config.k, by_document=config.by_document
        )
        for id in asked.file_queries:
            yield asked.queries.get(id).text, answers.get(id, [])
        return
    docs = collection.docs if collection is not None else None
    searcher = Searcher.open(config.index, precision=config.precision, docs=docs)
    prepare(searcher, config, len(queries))
    if config.sets:
        for query in queries:
            yield query, searcher.search_sets(query, config.k, where=config.where)
        return
    found = searcher.search_many(
        queries, config.k, where=config.where, by_document=config.by_document
    )
    yield from zip(queries, found, strict=True)


def _write(config: SearchConfig) -> None:
    """Write the run of a split or a file, and print its folder."""
    from retrodistill.datasets import load_collection
    from retrodistill.searching import Searcher, documents, search_run

    assert config.data is not None
    assert config.out is not None
    collection = load_collection(config.data, queries=config.queries)
    inputs = {"collection": collection.fingerprint}
    details: dict[str, object] = {"split": config.split}
    if config.index is None:
        hits = retrieve(collection, config)
        hits = documents(hits, config.k) if config.by_document else hits
        details["model"] = config.model
    else:
        searcher = Searcher.open(config.index, precision=config.precision, with_texts=False)
        assert searcher.manifest is not None
        prepare(searcher, config, None)
        hits = search_run(
            searcher, collection, config.split, config.k, where=config.where,
            by_document=config.by_document,
        )  # fmt: skip
        inputs["index"] = searcher.manifest.fingerprint
        details["model"] = searcher.manifest.details.get("model")
    hits.write(
        config.out,
        inputs=inputs,
        config=as_dict(config),
        details=details,
        overwrite=config.overwrite,
    )
    print(config.out)


def retrieve(collection: "Collection", config: SearchConfig) -> "Run":
    """Return the run of --retriever, or of --model, over the documents of a collection."""
    from retrodistill.mining import mine_candidates
    from retrodistill.searching import SPLIT

    split = config.split if config.split or collection.file_queries else SPLIT
    return mine_candidates(
        collection,
        split,
        retrievers=config.retriever or (f"dense:{config.model}",),
        depth=config.k * (DEEPER if config.by_document else 1),
        precision=config.precision,
    )


def prepare(searcher: "Searcher", config: SearchConfig, queries: int | None) -> None:
    """Set the recall that was asked for, and say how the index will search."""
    if config.recall is not None:
        searcher.set_recall(config.recall)
    if config.explain:
        say(searcher.explain(config.where, config.k, queries))


def line(rank: int, hit: "Hit") -> str:
    """Return rank, score, id, and the beginning of what the document says, as one line."""
    said = " ".join(f"{hit.title}  {hit.text}".split())
    short = said if len(said) <= SHOWN else said[: SHOWN - 1].rstrip() + "…"
    return f"{rank:>4}  {hit.score:8.4f}  {hit.doc_id}  {short}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
