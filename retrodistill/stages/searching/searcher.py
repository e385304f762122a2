"""Answer questions from an index folder."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError, DataError, RetrodistillError
from retrodistill.base.manifest import Manifest
from retrodistill.base.registry import RETRIEVERS, registered_only
from retrodistill.base.types import Doc, Encoder, Index, Retriever, RetrieverOptions
from retrodistill.data.store.lineage import UNKNOWN, Lineage, lineage_in
from retrodistill.models.indexes import index_kind
from retrodistill.models.indexes.folder import INDEX, KIND, MODEL, read_ids
from retrodistill.models.students.truncated import Truncated
from retrodistill.stages.searching.grouping import best_passages, document_of, first_passages
from retrodistill.stages.searching.query_models import query_encoder

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts
    from retrodistill.data.store.runs import Run
    from retrodistill.models.indexes.planning import Condition, Where
    from retrodistill.models.indexes.tuning import EffortTuning

SPLIT = "test"
"""Whose queries to search for, if nothing is said."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found; title and text are empty where the texts are not at hand."""

    doc_id: str
    score: float
    title: str
    text: str


class Searcher:
    """An encoder, the index of its vectors, and, if they are at hand, the documents' texts.

    Threads may search at the same time, and each gets what it would get alone; one model and one
    index serve all of them. What changes the index or its effort (`index.add`, `index.delete`,
    `set_recall`) is for a time when nobody searches.
    """

    def __init__(
        self,
        encoder: Encoder,
        index: Index,
        *,
        docs: "Texts | None" = None,
        manifest: Manifest | None = None,
        lineage: Lineage = UNKNOWN,
    ) -> None:
        if encoder.dimension != index.dimension:
            raise DataError(
                f"the encoder's vectors have {encoder.dimension} dimensions, but the index's "
                f"{index.dimension}. Embed the collection with this encoder."
            )
        self.encoder = encoder
        self.index = index
        self.docs = docs
        self.manifest = manifest
        self.lineage = lineage

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        query_model: "str | Path | None" = None,
        precision: Precision = "auto",
        docs: "Texts | None" = None,
        with_texts: bool = True,
    ) -> "Searcher":
        """Return the searcher of a folder that `embed_collection` wrote.

        Queries are read by the folder's own model, or by `query_model`, which must have the same
        document side: weights, settings, tokenizer, prompt, limit, dimension. Texts come from
        `docs`, else, unless `with_texts` is off, from the collection that the manifest names, if
        it can still be opened.

        Raises:
            ConfigError: `query_model` cannot be loaded, or reads documents otherwise.
            DataError: there is no index folder, or one of its files is damaged.

        """
        from retrodistill.models.students.dense import DenseEncoder

        folder = Path(folder)
        manifest = Manifest.read(folder, kind=KIND)
        manifest.check_files(folder)
        if docs is None and with_texts:
            docs = _texts_of(manifest)
        lineage = lineage_in(folder, manifest)
        if "retriever" in manifest.details:
            if query_model is not None:
                raise ConfigError(
                    f"--query-model is for indexes of dense vectors, but {folder} is one for "
                    f"{manifest.details['retriever']} search: omit it."
                )
            retriever = _opened_retriever(folder, manifest, precision)
            ids = read_ids(folder / INDEX)
            return RetrieverSearcher(retriever, ids, docs=docs, manifest=manifest, lineage=lineage)
        try:
            kind, max_tokens = manifest.details["index"], manifest.details["max_tokens"]
            dimension = manifest.details["dimension"]
        except KeyError as error:
            raise DataError(f"{folder}: the manifest lacks {error}. Embed again.") from error
        if query_model is None:
            whole = DenseEncoder(folder / MODEL, max_tokens=max_tokens, precision=precision)
        else:
            whole = query_encoder(query_model, folder, manifest, precision)
            lineage |= whole.lineage
        cut = dimension < whole.dimension
        encoder: Encoder = (
            Truncated(whole, dimension, normalised=whole.normalised) if cut else whole
        )
        index = index_kind(kind).load(folder / INDEX)
        return cls(encoder, index, docs=docs, manifest=manifest, lineage=lineage)

    @property
    def tuning(self) -> "EffortTuning | None":
        """What was measured when the index was embedded with a recall."""
        from retrodistill.models.indexes.tuning import EffortTuning

        record = self.manifest.details.get("tuning") if self.manifest is not None else None
        return None if record is None else EffortTuning.from_dict(record)

    def set_recall(self, target: float) -> None:
        """Take the fastest effort that kept this recall when the index was tuned.

        Raises:
            ConfigError: the index was not tuned, or nothing that was tried keeps it.

        """
        from retrodistill.models.indexes.tuning import Tunable, choose_effort

        tuning = self.tuning
        if tuning is None or not isinstance(self.index, Tunable):
            raise ConfigError(
                "--recall chooses from what was measured, but this index was never tuned. Embed "
                "again with --recall, and an --index that has an effort, such as hnsw or ivf."
            )
        self.index.effort = self.index.effort | choose_effort(tuning, target).effort

    def explain(self, where: "Condition" = None, k: int = 10, queries: int | None = None) -> str:
        """Return in words how a search goes, and what was measured of the index."""
        from retrodistill.models.indexes.base import VectorIndex
        from retrodistill.models.indexes.tuning import Tunable

        index = self.index
        kind = self.manifest.details["index"] if self.manifest is not None else type(index).__name__
        lines = [f"{kind}, {len(index):,} vectors of {index.dimension} dimensions."]
        if (tuning := self.tuning) is not None and isinstance(index, Tunable):
            lines += [
                f"recall@{tuning.k} {trial.recall:.3f} at {trial.ms:.2f} ms a query, measured with "
                f"{tuning.queries} {tuning.source}: {trial.effort or 'nothing to set'}."
                for trial in tuning.tried
                if trial.effort.items() <= index.effort.items()
            ]
            if tuning.held_out is not None and tuning.chosen.effort.items() <= index.effort.items():
                lines.append(f"on as many others: recall@{tuning.k} {tuning.held_out:.3f}.")
        if isinstance(index, VectorIndex):
            lines.append(f"{index.plan(where, k, queries or 1)}.")
        return "\n".join(lines)

    def find(
        self, texts: Sequence[str], k: int, *, where: "Where" = None, by_document: bool = False
    ) -> tuple[list[list[str]], list[NDArray[np.float32]]]:
        """Return for each query its best ids and their scores, best first.

        `by_document` keeps the best passage of each document, as `grouping` says.
        """
        vectors = self.encoder.encode_queries(texts)
        if by_document:
            return best_passages(lambda depth: self.index.search(vectors, depth, where=where), k)
        return self.index.search(vectors, k, where=where)

    def search(
        self, query: str, k: int = 10, *, where: "Condition" = None, by_document: bool = False
    ) -> list[Hit]:
        """Return the `k` best documents of a query that fit a condition, best first.

        `by_document` returns the best passage of each document, as `grouping` says.
        """
        return self.search_many([query], k, where=where, by_document=by_document)[0]

    def search_sets(self, query: str, k: int = 10, *, where: "Condition" = None) -> list[Hit]:
        """Return the `k` best documents of a query with operators, as in `asthma NOT children`.

        `retrodistill.data.rankings.sets` says what AND, OR and NOT do, and what scores then are.

        Raises:
            ConfigError: operators, brackets or quotes do not fit.
            DataError: the query is empty.

        """
        from retrodistill.data.rankings.sets import evaluate_sets

        _refuse_empty([query])

        def scored(texts: list[str], depth: int) -> list[dict[str, float]]:
            results = zip(*self.find(texts, depth, where=where), strict=True)
            return [dict(zip(ids, scores.tolist(), strict=True)) for ids, scores in results]

        return [self._hit(doc, score) for doc, score in evaluate_sets(query, scored, k)]

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        where: "Where" = None,
        by_document: bool = False,
    ) -> list[list[Hit]]:
        """Return the `k` best documents of each query, best first.

        `where` keeps the documents whose attributes fit, as in `year >= 2020 and lang = "en"`:
        one condition for all queries, or a sequence of one a query.

        Raises:
            ConfigError: a condition cannot be read, or names an attribute that there is not.
            DataError: a query is empty.

        """
        _refuse_empty(queries)
        results = zip(*self.find(queries, k, where=where, by_document=by_document), strict=True)
        return [
            [self._hit(doc, float(score)) for doc, score in zip(ids, scores, strict=True)]
            for ids, scores in results
        ]

    def _hit(self, doc_id: str, score: float) -> Hit:
        has_text = self.docs is not None and doc_id in self.docs
        doc = self.docs.get(doc_id) if self.docs is not None and has_text else Doc(doc_id, "", "")
        return Hit(doc_id, score, doc.title, doc.text)


class RetrieverSearcher(Searcher):
    """A sparse or late-interaction student over its documents: no conditions, no efforts."""

    def __init__(
        self,
        retriever: Retriever,
        ids: Sequence[str],
        *,
        docs: "Texts | None" = None,
        manifest: Manifest | None = None,
        lineage: Lineage = UNKNOWN,
    ) -> None:
        self.retriever = retriever
        self.docs = docs
        self.manifest = manifest
        self.lineage = lineage
        self.ids = frozenset(ids)
        self._ids = np.array(ids, object)

    def set_recall(self, target: float) -> None:
        """Refuse: the search is exact."""
        raise ConfigError("--recall is for approximate indexes, but this one is searched exactly.")

    def explain(self, where: "Condition" = None, k: int = 10, queries: int | None = None) -> str:
        """Return in words how a search goes."""
        kind = self.manifest.details["retriever"] if self.manifest is not None else "retriever"
        size = f"{len(self._ids):,} documents, {self.retriever.nbytes / 1e6:,.1f} MB"
        return f"{kind}, {size}: every document that can match is scored."

    def find(
        self, texts: Sequence[str], k: int, *, where: "Where" = None, by_document: bool = False
    ) -> tuple[list[list[str]], list[NDArray[np.float32]]]:
        """Return for each query its best ids and their scores, best first.

        Raises:
            ConfigError: a condition is given.

        """
        if where is not None:
            raise ConfigError(
                "--where needs an index of dense vectors: embed a bi-encoder with --attributes."
            )
        return best_passages(partial(self._best, texts), k) if by_document else self._best(texts, k)

    def _best(
        self, texts: Sequence[str], k: int
    ) -> tuple[list[list[str]], list[NDArray[np.float32]]]:
        """Return the best ids and scores; of equal scores the larger id comes first."""
        ids, scores = [], []
        for rows, values in self.retriever.top(texts, k):
            names = self._ids[rows]
            order = sorted(range(len(rows)), key=lambda at: (values[at], names[at]), reverse=True)[
                :k
            ]
            ids.append([str(names[position]) for position in order])
            scores.append(values[order])
        return ids, scores


def _opened_retriever(folder: Path, manifest: Manifest, precision: Precision) -> Retriever:
    """Return the retriever that was saved in an index folder."""
    options = RetrieverOptions(max_tokens=manifest.details.get("max_tokens"), precision=precision)
    with registered_only():  # a folder that somebody sent may not choose what is imported
        kind = RETRIEVERS[manifest.details["retriever"]]
    retriever: Retriever = kind.open(folder / INDEX, str(folder / MODEL), options)
    return retriever


def search_run(
    searcher: Searcher,
    collection: "Collection",
    split: str | None,
    k: int,
    *,
    where: "Where" = None,
    by_document: bool = False,
) -> "Run":
    """Return the run of the `k` best documents of each query of a split that fit a condition.

    Queries that a file added are searched for too; without a split, they alone, or those of `test`.
    With `by_document`, the run holds documents in place of their passages, as `grouping` says.
    Another collection's queries are allowed; a warning says when its documents differ from the
    ones in the index.

    Raises:
        ConfigError: there is no such split.

    """
    from retrodistill.data.store.runs import Run

    if searcher.manifest is not None:
        embedded = searcher.manifest.inputs.get("docs")
        if embedded != collection.docs.fingerprint:
            warnings.warn(
                f"the index holds other documents than {collection.name}: "
                "its judgements may not know the documents that are found.",
                stacklevel=2,
            )
    query_ids = collection.chosen_queries(split, default=SPLIT)
    texts = collection.queries.full_texts(collection.queries.rows(query_ids))
    ids, scores = searcher.find(texts, k, where=where, by_document=by_document)
    if by_document:
        ids = [[document_of(doc) for doc in row] for row in ids]
    lengths = [len(row) for row in ids]
    return Run.from_columns(
        np.repeat(np.array(query_ids, object), lengths).tolist(),
        [doc for row in ids for doc in row],
        np.concatenate([np.empty(0, np.float32), *scores]),
        lineage=searcher.lineage,
    )


def hits_of(
    run: "Run", docs: "Texts", k: int, *, by_document: bool = False
) -> dict[str, list[Hit]]:
    """Return the `k` best hits of each query of a run, or the best passages of `k` documents."""
    hits = {}
    for query, ids, scores in run.lists():
        positions = first_passages(ids, k) if by_document else range(min(k, len(ids)))
        chosen = [docs.get(ids[position]) for position in positions]
        hits[query] = [
            Hit(doc.id, float(scores[position]), doc.title, doc.text)
            for doc, position in zip(chosen, positions, strict=True)
        ]
    return hits


def _refuse_empty(queries: Sequence[str]) -> None:
    """Raise DataError at a query without a word."""
    for position, query in enumerate(queries):
        if not query.strip():
            raise DataError(f"query {position + 1} is empty: write what to search for.")


def _texts_of(manifest: Manifest) -> "Texts | None":
    """Return the documents that the index was made from, or None if they are not at hand."""
    from retrodistill.data.datasets.collection import load_docs

    spec = manifest.details.get("data")
    if not spec:
        return None
    try:
        docs = load_docs(spec)
    except RetrodistillError:
        return None
    return docs if docs.fingerprint == manifest.inputs.get("docs") else None
