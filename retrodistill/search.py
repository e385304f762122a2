"""Search an index: answer queries on the terminal, or write a run for a split's queries.

    python -m retrodistill.search --index indexes/kl "effect of vitamin D on asthma" --k 5
    python -m retrodistill.search --index indexes/kl "asthma" --where "year >= 2020" --explain
    python -m retrodistill.search --index indexes/kl --data beir:scifact --k 100 --out runs/kl

A query shows rank, score, id and the document's beginning; a split gives a run folder.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodistill.command import run
from retrodistill.config import SearchConfig, as_dict
from retrodistill.progress import say

if TYPE_CHECKING:
    from retrodistill.searching import Hit, Searcher

SHOWN = 100
"""Characters of a document on the terminal."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(SearchConfig, search, verb="search", about=__doc__, words=words)


def search(config: SearchConfig) -> None:
    """Print what is found for the queries, or write the run of a split."""
    from retrodistill import preflight
    from retrodistill.datasets import load_collection
    from retrodistill.searching import Searcher, search_run

    preflight.search(config)
    collection = load_collection(config.data) if config.data is not None else None
    if config.query:
        docs = collection.docs if collection is not None else None
        searcher = Searcher.open(config.index, precision=config.precision, docs=docs)
        prepare(searcher, config)
        answers = (
            [searcher.search_sets(query, config.k, where=config.where) for query in config.query]
            if config.sets
            else searcher.search_many(config.query, config.k, where=config.where)
        )
        for query, hits in zip(config.query, answers, strict=True):
            print(query)
            for rank, hit in enumerate(hits, start=1):
                print(line(rank, hit))
        return
    assert collection is not None
    assert config.out is not None
    searcher = Searcher.open(config.index, precision=config.precision, with_texts=False)
    assert searcher.manifest is not None
    prepare(searcher, config)
    found = search_run(searcher, collection, config.split, config.k, where=config.where)
    found.write(
        config.out,
        inputs={"collection": collection.fingerprint, "index": searcher.manifest.fingerprint},
        config=as_dict(config),
        details={"model": searcher.manifest.details.get("model"), "split": config.split},
        overwrite=config.overwrite,
    )
    print(config.out)


def prepare(searcher: "Searcher", config: SearchConfig) -> None:
    """Set the recall that was asked for, and say how the index will search."""
    if config.recall is not None:
        searcher.set_recall(config.recall)
    if config.explain:
        say(searcher.explain(config.where, config.k, len(config.query) or None))


def line(rank: int, hit: "Hit") -> str:
    """Return rank, score, id, and the beginning of what the document says, as one line."""
    said = " ".join((hit.title or hit.text).split())
    short = said if len(said) <= SHOWN else said[: SHOWN - 1].rstrip() + "…"
    return f"{rank:>4}  {hit.score:8.4f}  {hit.doc_id}  {short}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
