"""Convert a click log to judgements: a split that students train on and are measured by.

    python -m retrodistill.convert --clicks clicks.csv --data beir:shop --min-clicks 2 \\
        --out shop/qrels/clicks.tsv
    python -m retrodistill.convert --clicks clicks.csv --data docs:handbook --queries log.txt \\
        --grades clicks --out clicks.tsv

Give the file to any collection: --data docs:handbook,queries=log.txt,qrels=clicks.tsv has the
split `clicks` then.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import ConvertConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ConvertConfig, convert, verb="convert", about=__doc__, words=words)


def convert(config: ConvertConfig) -> None:
    """Write the judgements, log what became of the rows, and print the file."""
    from retrodistill.base.errors import DataError
    from retrodistill.base.files import write_atomically
    from retrodistill.base.logging import log
    from retrodistill.data.datasets import load_collection
    from retrodistill.data.datasets.clicks import read_clicks, resolvers
    from retrodistill.stages import preflight

    preflight.convert(config)
    collection = None
    if config.data is not None:
        collection = load_collection(config.data, queries=config.queries)
    query_of, doc_of = resolvers(collection, config.queries)
    clicks = read_clicks(config.clicks, query_of=query_of, doc_of=doc_of)
    qrels = clicks.judgements(least=config.min_clicks, graded=config.grades == "clicks")
    log.info(clicks.summary(qrels))
    if not qrels:
        raise DataError(f"{config.clicks} gives no judgement: {clicks.summary(qrels)}")
    lines = ["query-id\tcorpus-id\tscore"]
    lines += [
        f"{query}\t{doc}\t{grade}" for query, docs in qrels.items() for doc, grade in docs.items()
    ]
    write_atomically(config.out, ("\n".join(lines) + "\n").encode())
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
