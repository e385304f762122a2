"""A test collection: documents, queries, and who judged what relevant."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from retrodistill.datasets.texts import Texts
from retrodistill.errors import ConfigError, DataError
from retrodistill.manifest import digest
from retrodistill.registry import COLLECTIONS

Judgements = dict[str, dict[str, int]]


class Collection:
    """Documents, queries and judgements; the texts stay on disk, judgements are read when asked.

    Judgements may name documents that the collection does not hold, as in real data: they count
    for recall. `spec` is what `load_collection` was given. `fingerprint` is the hash of documents
    and queries, whatever they were read from; `docs.fingerprint` is that of the documents alone.
    """

    def __init__(
        self,
        name: str,
        *,
        docs: Texts,
        queries: Texts,
        judgements: Mapping[str, Callable[[], Judgements]],
        scoreddocs: Callable[[], Iterator[tuple[str, str, float]]] | None = None,
    ) -> None:
        self.name = name
        self.spec = ""
        self.docs = docs
        self.queries = queries
        self.fingerprint = digest(docs.fingerprint, queries.fingerprint)
        self.splits = tuple(judgements)
        self._judgements = judgements
        self._scoreddocs = scoreddocs
        self._qrels: dict[str, Judgements] = {}

    def __repr__(self) -> str:
        size = f"{len(self.docs)} documents, {len(self.queries)} queries"
        return f"Collection({self.name!r}, {size}, splits {', '.join(self.splits) or 'none'})"

    @property
    def scoreddocs(self) -> Iterator[tuple[str, str, float]] | None:
        """Query id, document id and score of each published candidate, if there are any."""
        return self._scoreddocs() if self._scoreddocs else None

    def qrels(self, split: str) -> Judgements:
        """Return the judgements of a split: query id -> document id -> grade. Do not change it.

        Raises:
            ConfigError: there is no such split.
            DataError: its file is not in order.

        """
        if split not in self._judgements:
            raise ConfigError(
                f"{self.name} has no split {split!r}. "
                f"It has: {', '.join(self.splits) or 'none, for it comes without judgements'}."
            )
        if split not in self._qrels:
            self._qrels[split] = self._judgements[split]()
        return self._qrels[split]

    def relevant(self, split: str) -> dict[str, list[str]]:
        """Return each judged query's documents of a grade above 0 that the collection holds."""
        qrels = self.qrels(split)
        ids = list({doc for grades in qrels.values() for doc, grade in grades.items() if grade > 0})
        held = {doc for doc, row in zip(ids, self.docs.find(ids).tolist(), strict=True) if row >= 0}
        return {
            query: [doc for doc, grade in grades.items() if grade > 0 and doc in held]
            for query, grades in qrels.items()
        }

    def query_ids(self, split: str) -> list[str]:
        """Return the queries that are judged in a split, in the order of the query file.

        Raises:
            ConfigError: there is no such split.
            DataError: a judged query has no text.

        """
        try:
            rows = self.queries.rows(list(self.qrels(split)))
        except DataError as error:
            raise DataError(f"split {split!r} judges queries that have no text: {error}") from None
        return self.queries.ids(np.sort(rows))


def load_collection(spec: str) -> Collection:
    """Return the collection of an id: beir:PATH, irds:ID, hf:ID or builtin:pydocs.

    Raises:
        ConfigError: the id is not of this form, or its kind or argument is unknown.
        DataError: the collection's files are not in order.
        MissingExtra: its kind needs a package that is not installed.

    """
    kind, colon, argument = spec.partition(":")
    if not colon and Path(spec).expanduser().is_dir():
        raise ConfigError(f"{spec!r} is a folder, not a collection's id. Write beir:{spec}.")
    if not argument:
        raise ConfigError(
            f"a collection is written beir:PATH, irds:ID, hf:ID or builtin:pydocs, not {spec!r}."
        )
    collection: Collection = COLLECTIONS[kind](argument)
    collection.spec = spec
    return collection


def judgements(rows: Iterable[tuple[str, str, int]]) -> Judgements:
    """Return (query id, document id, grade) rows by query; of two grades, the higher holds."""
    qrels: Judgements = {}
    for query, doc, grade in rows:
        graded = qrels.setdefault(query, {})
        graded[doc] = max(grade, graded.get(doc, grade))
    return qrels
