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
from retrodistill.base.config import SearchConfig

if TYPE_CHECKING:
    pass


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(SearchConfig, search, verb="search", about=__doc__, words=words)


def search(config: SearchConfig) -> None:
    """Print the hits of the queries, or write the run of a split or a file."""
    from retrodistill.stages import preflight

    preflight.search(config)
    from retrodistill.data.datasets import load_collection
    from retrodistill.stages.pipelines import verbs
    from retrodistill.stages.searching.answers import index_answers, line, run_answers, with_asked

    if config.out is not None:
        verbs.search(config)
        print(config.out)
        return
    collection = load_collection(config.data) if config.data is not None else None
    if config.index is not None:
        answers = index_answers(config, collection.docs if collection is not None else None)
    else:
        assert collection is not None
        collection = with_asked(collection, config)
        answers = run_answers(verbs.retrieve(collection, config), collection, config)
    for query, hits in answers:
        print(query)
        for rank, hit in enumerate(hits, start=1):
            print(line(rank, hit))


if __name__ == "__main__":
    sys.exit(main())
