"""Convert between formats: score files to and from score stores, click logs to judgements.

It also writes a view: the queries with what a retriever found for them.

    python -m retrodistill.convert --import published.tsv --format margin-mse --data beir:scifact \\
        --out scores/published
    python -m retrodistill.convert --export scores/ce --format pylate --data beir:scifact \\
        --out scores.jsonl
    python -m retrodistill.convert --clicks clicks.csv --data beir:shop --min-clicks 2 \\
        --out shop/qrels/clicks.tsv
    python -m retrodistill.convert --context runs/bm25 --data beir:scifact \\
        --out scifact/queries.context.jsonl

Train on an imported store as on a scored one. Give a judgement file to any collection: the split
of --data docs:handbook,queries=log.txt,qrels=clicks.tsv is named `clicks`.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodistill.base.command import run
from retrodistill.base.config import ConvertConfig

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ConvertConfig, convert, verb="convert", about=__doc__, words=words)


def convert(config: ConvertConfig) -> None:
    """Write the store or the file that the settings ask for, and print its path."""
    from retrodistill.stages import preflight

    preflight.convert(config)
    if config.import_ is not None:
        from retrodistill.stages.pipelines import verbs

        verbs.convert(config)
    elif config.export is not None:
        _export(config)
    elif config.context is not None:
        _write_context(config)
    else:
        _convert_clicks(config)
    print(config.out)


def _export(config: ConvertConfig) -> None:
    from retrodistill.data.store.runs import Run
    from retrodistill.stages.scoring import export_scores

    assert config.export is not None
    assert config.format is not None
    export_scores(
        Run.read(config.export),
        config.out,
        format=config.format,
        collection=_collection(config),
        split=config.split,
        overwrite=config.overwrite,
    )


def _collection(config: ConvertConfig) -> "Collection | None":
    from retrodistill.data.datasets import load_collection

    if config.data is None:
        return None
    return load_collection(config.data, queries=config.queries)


def _write_context(config: ConvertConfig) -> None:
    """Write the queries with the best documents of the run as a view."""
    from retrodistill.data.lines import write_lines
    from retrodistill.data.store.runs import Run
    from retrodistill.stages.generating.context import queries_with_context

    collection = _collection(config)
    assert config.context is not None
    assert collection is not None
    run = Run.read(config.context)
    write_lines(
        config.out,
        queries_with_context(collection, run, docs=config.context_docs, words=config.context_words),
    )


def _convert_clicks(config: ConvertConfig) -> None:
    """Write the judgements of a click log, and log how many of its rows they come from."""
    from retrodistill.base.errors import DataError
    from retrodistill.base.files import write_atomically
    from retrodistill.base.logging import log
    from retrodistill.data.datasets.clicks import read_clicks, resolvers
    from retrodistill.data.qrels import qrels_text

    assert config.clicks is not None
    query_of, doc_of = resolvers(_collection(config), config.queries)
    clicks = read_clicks(config.clicks, query_of=query_of, doc_of=doc_of)
    qrels = clicks.judgements(least=config.min_clicks, graded=config.grades == "clicks")
    log.info(clicks.summary(qrels))
    if not qrels:
        raise DataError(f"{config.clicks} gives no judgement: {clicks.summary(qrels)}")
    write_atomically(config.out, qrels_text(qrels).encode())


if __name__ == "__main__":
    sys.exit(main())
