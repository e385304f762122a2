"""What `search` answers: queries from an index folder, or from the run of a retriever."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import SearchConfig
from retrodistill.base.logging import log
from retrodistill.base.manifest import digest_files
from retrodistill.data.datasets.queries import query_file, read_queries
from retrodistill.models.indexes import use_device
from retrodistill.models.inference.models import model_path
from retrodistill.stages.searching.searcher import Hit, Searcher, hits_of, search_run

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts
    from retrodistill.data.store.runs import Run

Answer = tuple[str, list[Hit]]
"""A query's text and its hits, best first."""

SHOWN = 120
"""Characters of a document on the terminal."""


def asked(config: SearchConfig) -> list[str]:
    """Return the queries of the command line, or those of --queries."""
    if config.queries is None:
        return list(config.query)
    return [query.text for query in read_queries(config.queries).queries]


def with_asked(collection: "Collection", config: SearchConfig) -> "Collection":
    """Return the collection with the queries that are asked on the terminal."""
    return collection.with_queries(query_file(asked(config)), name="the command line")


def run_answers(run: "Run", collection: "Collection", config: SearchConfig) -> Iterator[Answer]:
    """Yield the hits that the run of a retriever has for each query that was asked."""
    hits = hits_of(run, collection.docs, config.k, by_document=config.by_document)
    for query in collection.file_queries:
        yield collection.queries.get(query).text, hits.get(query, [])


def index_answers(config: SearchConfig, docs: "Texts | None") -> Iterator[Answer]:
    """Yield the hits that the index folder has for each query that was asked."""
    queries = asked(config)
    searcher = _opened(config, len(queries), docs=docs)
    if config.sets:
        for query in queries:
            yield query, searcher.search_sets(query, config.k, where=config.where)
        return
    hits = searcher.search_many(
        queries, config.k, where=config.where, by_document=config.by_document
    )
    yield from zip(queries, hits, strict=True)


def index_run(
    config: SearchConfig, collection: "Collection"
) -> tuple["Run", dict[str, str], dict[str, Any]]:
    """Return the run of an index folder, what it was made from, and what is known of it."""
    searcher = _opened(config, None, with_texts=False)
    assert searcher.manifest is not None
    run = search_run(
        searcher,
        collection,
        config.split,
        config.k,
        where=config.where,
        by_document=config.by_document,
    )
    inputs = {"index": searcher.manifest.fingerprint}
    if config.query_model is None:
        return run, inputs, {"model": searcher.manifest.details.get("model")}
    details = {"model": config.query_model}
    if Path(config.query_model).is_dir():
        details["query_weights"] = digest_files(Path(config.query_model), "*.safetensors")
    return run, inputs | {"query_model": searcher.encoder.fingerprint}, details


def _opened(config: SearchConfig, queries: int | None, **settings: Any) -> Searcher:
    """Open the index, set the recall that was asked for, and log how it will search."""
    assert config.index is not None
    searcher = Searcher.open(
        config.index, precision=config.precision, query_model=config.query_model, **settings
    )
    if config.device != "cpu":
        use_device(getattr(searcher, "index", searcher), config.device)
    if config.recall is not None:
        searcher.set_recall(config.recall)
    if config.explain:
        log.info(searcher.explain(config.where, config.k, queries))
        if config.query_model is not None:
            log.info(f"queries are read by {config.query_model}{_towers(config.query_model)}.")
    return searcher


def _towers(model: str) -> str:
    """Return the sizes of a model's two towers, to go behind its name; nothing if it has one."""
    from retrodistill.models.students.towers import tower_bytes

    sizes = tower_bytes(Path(model_path(model)))
    if sizes is None:
        return ""
    query, document = (f"{sizes[side] / 1e6:,.1f} MB" for side in ("query", "document"))
    return f" (query tower {query}, document tower {document})"


def line(rank: int, hit: Hit) -> str:
    """Return rank, score, id, and the beginning of what the document says, as one line."""
    said = " ".join(f"{hit.title}  {hit.text}".split())
    short = said if len(said) <= SHOWN else said[: SHOWN - 1].rstrip() + "…"
    return f"{rank:>4}  {hit.score:8.4f}  {hit.doc_id}  {short}".rstrip()
