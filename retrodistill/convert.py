"""Convert between formats: score files to and from score stores, click logs to judgements.

    python -m retrodistill.convert --import published.tsv --format margin-mse --data beir:scifact \\
        --out scores/published
    python -m retrodistill.convert --export scores/ce --format pylate --data beir:scifact \\
        --out scores.jsonl
    python -m retrodistill.convert --clicks clicks.csv --data beir:shop --min-clicks 2 \\
        --out shop/qrels/clicks.tsv

Train on an imported store as on a scored one. Give a judgement file to any collection: the split
of --data docs:handbook,queries=log.txt,qrels=clicks.tsv is named `clicks`.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodistill.base.command import run
from retrodistill.base.config import ConvertConfig, as_dict

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ConvertConfig, convert, verb="convert", about=__doc__, words=words)


def convert(config: ConvertConfig) -> None:
    """Write the store or the file that the settings ask for, and print its path."""
    from retrodistill.data.datasets import load_collection
    from retrodistill.data.store.runs import Run
    from retrodistill.stages import preflight, scoring

    preflight.convert(config)
    collection = None
    if config.data is not None:
        collection = load_collection(config.data, queries=config.queries)
    if config.clicks is not None:
        _convert_clicks(config, collection)
    elif config.import_ is not None:
        assert collection is not None
        scoring.import_scores(
            collection,
            config.import_,
            config.out,
            format=config.format,
            scale=config.scale,
            on_conflict=config.on_conflict,
            config=as_dict(config),
        )
    else:
        assert config.export is not None
        assert config.format is not None
        scoring.export_scores(
            Run.read(config.export),
            config.out,
            format=config.format,
            collection=collection,
            split=config.split,
            overwrite=config.overwrite,
        )
    print(config.out)


def _convert_clicks(config: ConvertConfig, collection: "Collection | None") -> None:
    """Write the judgements of a click log, and log how many of its rows they come from."""
    from retrodistill.base.errors import DataError
    from retrodistill.base.files import write_atomically
    from retrodistill.base.logging import log
    from retrodistill.data.datasets.clicks import read_clicks, resolvers

    assert config.clicks is not None
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


if __name__ == "__main__":
    sys.exit(main())
