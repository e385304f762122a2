"""`irds:ID`: a data set of the ir_datasets catalogue, or one that a program registered there.

Its own judgements are the split at the end of its id (`beir/scifact/test` gives `test`, which is
also the default); data sets below it that share its documents are further splits, so
`irds:beir/scifact` has `train` and `test`. Judgements are fetched on demand.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from typing import Any

from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.base.types import Doc
from retrodistill.data.datasets.cache import cached_texts
from retrodistill.data.datasets.collection import Collection
from retrodistill.data.datasets.texts import TextSource
from retrodistill.data.qrels import Judgements, judgements

TEXT_FIELDS = ("title", "text")
SPLITS = ("train", "dev", "val", "validation", "test")


def load(id: str) -> Collection:
    """Return the collection of an ir_datasets id.

    A data set of the catalogue is cached under its id; one that a program registered may change, so
    each process reads its texts again.

    Raises:
        ConfigError: the id is unknown, or has no documents or no queries.
        MissingExtra: ir_datasets is not installed.

    """
    try:
        import ir_datasets
    except ImportError as error:
        raise MissingExtra(
            f"irds:{id} needs ir_datasets. Install it: pip install ir_datasets"
        ) from error
    try:
        dataset = ir_datasets.load(id)
    except KeyError:
        near = get_close_matches(id, ir_datasets.registry, n=1)
        hint = f" Did you mean irds:{near[0]}?" if near else " See https://ir-datasets.com."
        raise ConfigError(f"ir_datasets has no data set {id!r}.{hint}") from None
    below = [name for name in ir_datasets.registry if name.startswith(f"{id}/")]
    if not dataset.has_docs() or not dataset.has_queries():
        lacks = "queries" if dataset.has_docs() else "documents"
        alternatives = [name for name in below if ir_datasets.load(name).has_queries()][:8]
        hint = f" Take one below it: {', '.join(alternatives)}." if alternatives else ""
        raise ConfigError(f"irds:{id} has no {lacks}.{hint}")
    cacheable = bool(dataset.docs_metadata())
    home = str(ir_datasets.util.home_path())
    docs, queries = cached_texts(
        id,
        docs=TextSource(
            partial(_docs, dataset),
            lambda row: f"irds:{id}, document {row + 1}",
            lambda: map(_fields, dataset.docs_iter()),
        ),
        queries=TextSource(
            partial(_queries, dataset),
            lambda row: f"irds:{id}, query {row + 1}",
            lambda: map(_fields, dataset.queries_iter()),
        ),
        key=["irds", id, version("ir_datasets"), home] if cacheable else None,
    )
    splits = {name.removeprefix(f"{id}/"): ir_datasets.load(name) for name in below}
    splits = {
        split: candidate
        for split, candidate in splits.items()
        if candidate.has_qrels() and candidate.has_docs() and _same_docs(candidate, dataset)
    }
    if dataset.has_qrels():
        endings = [word for word in id.split("/") if word in SPLITS]
        splits[endings[-1] if endings else "test"] = dataset
    return Collection(
        id,
        docs=docs,
        queries=queries,
        judgements={split: partial(_judgements, candidate) for split, candidate in splits.items()},
        scoreddocs=partial(_scoreddocs, dataset) if dataset.has_scoreddocs() else None,
    )


def _same_docs(first: Any, second: Any) -> bool:
    return first.docs_handler() is second.docs_handler()


def _docs(dataset: Any) -> Iterator[Doc]:
    titled = {"title", "text"} <= set(dataset.docs_cls()._fields)
    for doc in dataset.docs_iter():
        if titled:
            yield Doc(_id(doc.doc_id), doc.title or "", doc.text or "")
        else:
            yield Doc(_id(doc.doc_id), "", _text(doc))


def _queries(dataset: Any) -> Iterator[Doc]:
    for query in dataset.queries_iter():
        yield Doc(_id(query.query_id), "", _text(query))


def _fields(record: Any) -> tuple[str, dict[str, Any]]:
    """Return the id of a document or query, and its fields beside title and text."""
    id, *_ = record
    names = record._fields[1:]
    return _id(id), {name: getattr(record, name) for name in names if name not in TEXT_FIELDS}


def _text(record: Any) -> str:
    return str(record.default_text() if hasattr(record, "default_text") else record.text)


def _id(value: Any) -> str:
    if not str(value).strip():
        raise DataError("ir_datasets gave an empty id. Repair the files it reads.")
    return str(value)


def _judgements(dataset: Any) -> Judgements:
    return judgements((str(q.query_id), str(q.doc_id), q.relevance) for q in dataset.qrels_iter())


def _scoreddocs(dataset: Any) -> Iterator[tuple[str, str, float]]:
    for scored in dataset.scoreddocs_iter():
        yield str(scored.query_id), str(scored.doc_id), float(scored.score)
