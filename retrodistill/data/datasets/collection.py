"""A test collection: documents, queries and relevance judgements."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.manifest import digest
from retrodistill.base.registry import COLLECTIONS
from retrodistill.data.datasets.mixtures import MetaView, meta_view
from retrodistill.data.datasets.options import take_options
from retrodistill.data.datasets.queries import QueryFile, log_counts, merged_queries, read_queries
from retrodistill.data.datasets.texts import Texts
from retrodistill.data.datasets.views import find_view, view_of
from retrodistill.data.qrels import Judgements, made_by_machine, read_qrels

ALL = "all"
"""Every query, judged or not, in a collection without a split of this name."""

OPTIONS = ("queries", "qrels", "view")
"""Options after any collection's id: `beir:PATH,queries=FILE,qrels=PATH,view=VIEW`."""


class Collection:
    """Documents, queries and relevance judgements (qrels) of a collection.

    Texts stay on disk, and judgements are read on demand. Judgements may name documents that the
    collection does not hold, as in real data: they count for recall. `spec` is the id that was
    loaded. `fingerprint` is the hash of documents and queries, independent of their source;
    `docs.fingerprint` is that of the documents alone. `file_queries` are the ids of the queries
    that were added from a file. `qrels_files` are the files of splits that have one, and `folder`
    is where named views lie, if there is such a place.
    """

    def __init__(
        self,
        name: str,
        *,
        docs: Texts,
        queries: Texts,
        judgements: Mapping[str, Callable[[], Judgements]],
        qrels_files: Mapping[str, Path] | None = None,
        scoreddocs: Callable[[], Iterator[tuple[str, str, float]]] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.spec = ""
        self.docs = docs
        self.queries = queries
        self.fingerprint = digest(docs.fingerprint, queries.fingerprint)
        self.splits = tuple(judgements)
        self._judgements = judgements
        self._qrels_files = dict(qrels_files or {})
        self._scoreddocs = scoreddocs
        self._qrels: dict[str, Judgements] = {}
        self.file_queries: list[str] = []
        self._teacher_view: Collection | None = None
        self.meta_views: tuple[MetaView, ...] = ()

    def __repr__(self) -> str:
        size = f"{len(self.docs)} documents, {len(self.queries)} queries"
        return f"Collection({self.name!r}, {size}, splits {', '.join(self.splits) or 'none'})"

    @property
    def scoreddocs(self) -> Iterator[tuple[str, str, float]] | None:
        """Query id, document id and score of the published candidates, or None."""
        return self._scoreddocs() if self._scoreddocs else None

    def qrels(self, split: str) -> Judgements:
        """Return the judgements of a split: query id -> document id -> grade. Do not modify it.

        Raises:
            ConfigError: the split does not exist.
            DataError: its file is malformed.

        """
        if split not in self._judgements:
            splits = ", ".join(self.splits) or "none, as it has no judgements"
            raise ConfigError(
                f"{self.name} has no split {split!r}. It has: {splits}. For queries without "
                "judgements use --queries FILE."
            )
        if split not in self._qrels:
            self._qrels[split] = self._judgements[split]()
        return self._qrels[split]

    def made_by_machine(self, split: str) -> str:
        """Return what a reader must know of judgements that no human made; else nothing."""
        file = self._qrels_files.get(split)
        return "" if file is None else made_by_machine(file)

    def relevant(self, split: str) -> dict[str, list[str]]:
        """Return the relevant documents (grade above 0) of each judged query that exist here."""
        return self._judged(split, lambda grade: grade > 0)

    def irrelevant(self, split: str) -> dict[str, list[str]]:
        """Return the documents that were judged not relevant (grade 0 or below), by query."""
        return self._judged(split, lambda grade: grade <= 0)

    def _judged(self, split: str, chosen: Callable[[int], bool]) -> dict[str, list[str]]:
        """Return the documents of chosen grades of each judged query that exist here."""
        qrels = self.qrels(split)
        pairs = (pair for grades in qrels.values() for pair in grades.items())
        ids = list({doc for doc, grade in pairs if chosen(grade)})
        held = {doc for doc, row in zip(ids, self.docs.find(ids).tolist(), strict=True) if row >= 0}
        return {
            query: [doc for doc, grade in grades.items() if chosen(grade) and doc in held]
            for query, grades in qrels.items()
        }

    def query_ids(self, split: str) -> list[str]:
        """Return the ids of the queries that are judged in a split, in the order of the queries.

        The split `all` has every query, judged or not.

        Raises:
            ConfigError: the split does not exist.
            DataError: the split's file is malformed, or a judged query has no text.

        """
        if split == ALL and ALL not in self.splits:
            return self.queries.ids()
        judged = list(self.qrels(split))
        try:
            rows = self.queries.rows(judged)
        except DataError as error:
            raise DataError(f"split {split!r} judges queries that have no text: {error}") from None
        return self.queries.ids(np.sort(rows))

    def chosen_queries(self, split: str | None, *, default: str) -> list[str]:
        """Return the ids of a split's queries and of those added from a file, in their order.

        Without a split, these are the file's alone, or those of the default split without a file.

        Raises:
            ConfigError: the split does not exist.
            DataError: there is no query.

        """
        if split is None and not self.file_queries:
            split = default
        ids = {*self.file_queries, *(self.query_ids(split) if split is not None else ())}
        if not ids:
            raise DataError(
                f"{self.name} has no queries"
                + (f" in its split {split!r}" if split != ALL else "")
                + ". Give a file of queries: --queries FILE."
            )
        return self.queries.ids(np.sort(self.queries.rows(list(ids))))

    def with_queries(self, file: QueryFile, *, name: str) -> "Collection":
        """Return this collection with the queries of a file added; `name` is the file's.

        Raises:
            DataError: a query of the file has the id, but not the text, of one of the collection.

        """
        return self._merged(file, name)[0]

    def _merged(self, file: QueryFile, name: str) -> "tuple[Collection, set[str]]":
        """Return the collection with the queries, and the ids of queries that the file repeats."""
        queries, ids, alike = merged_queries(self.queries, file, name=name)
        merged = copy(self)
        merged.queries = queries
        merged.fingerprint = digest(self.docs.fingerprint, queries.fingerprint)
        merged.file_queries = list(dict.fromkeys([*self.file_queries, *ids]))
        return merged, alike

    def view(self, view: str | None) -> "Collection":
        """Return this collection with the texts of a view, the same ids in the same rows.

        A view is named by its files beside the collection, or by a path (see `views`). Queries or
        documents that it lacks keep their texts; None is the collection itself.

        Raises:
            ConfigError: there is no such view.
            DataError: a file is malformed, or lacks the text of an id.

        """
        if view is None:
            return self
        files = find_view(view, self.folder)
        viewed = copy(self)
        viewed.name = f"{self.name}, view {Path(view).name}"
        for side, file in (("queries", files.queries), ("docs", files.docs)):
            if file is not None:
                texts = view_of(getattr(self, side), file, side=side, name=viewed.name)
                setattr(viewed, side, texts)
        viewed.fingerprint = digest(viewed.docs.fingerprint, viewed.queries.fingerprint)
        return viewed

    def taught_by(self, other: "Collection") -> "Collection":
        """Return this collection for a student whose teacher reads `other`, a view of the same ids.

        Raises:
            DataError: `other` has other documents or queries by id, or in other rows.

        """
        if not (self.docs.same_ids(other.docs) and self.queries.same_ids(other.queries)):
            raise DataError(
                f"{other.name}, which the teacher reads, has other ids than {self.name}, which the "
                "student reads. Take both as views of one collection: collection.view(...)."
            )
        taught = copy(self)
        taught._teacher_view = None if other.fingerprint == self.fingerprint else other
        return taught

    @property
    def teacher_view(self) -> "Collection":
        """The texts that a student's teacher reads: another view, or this one."""
        return self if self._teacher_view is None else self._teacher_view

    def meta_viewed(self, specs: Sequence[str]) -> "Collection":
        """Return this collection for meta-learning; the parts of a batch read these views.

        A spec is a view's name or path, `QUERIES:DOCUMENTS`, or several joined by +, as
        `mixtures` describes them. Without specs, nothing is in parts.

        Raises:
            ConfigError: there is no such view, or all parts would read the same texts.
            DataError: a file is malformed, or lacks the text of an id.

        """
        viewed = copy(self)
        viewed.meta_views = tuple(meta_view(self, spec) for spec in specs)
        if len(specs) > 1 and len({view.fingerprint for view in viewed.meta_views}) == 1:
            raise ConfigError(
                f"--meta-view {', '.join(specs)}: all of them are the same texts, so nothing is "
                "transferred from one to another. Give different views."
            )
        return viewed

    @property
    def views_read(self) -> "list[Collection]":
        """Each view that a training reads, once: the student's, the teacher's, those of parts."""
        members = [member for view in self.meta_views for member in view.members]
        return [*{each.fingerprint: each for each in (self, self.teacher_view, *members)}.values()]

    def with_splits(self, files: Mapping[str, Path]) -> "Collection":
        """Return this collection with a split for each name and judgement file.

        Raises:
            ConfigError: a split of this name already exists.

        """
        for split in sorted(files.keys() & self.splits):
            raise ConfigError(f"{self.name} already has a split {split!r}. Rename {files[split]}.")
        judged = copy(self)
        added = {
            split: partial(read_qrels, file, allow_empty=True) for split, file in files.items()
        }
        judged._judgements = {**self._judgements, **added}
        judged._qrels_files = {**self._qrels_files, **files}
        judged.splits = tuple(judged._judgements)
        return judged


def load_collection(spec: str, *, queries: str | Path | None = None) -> Collection:
    """Load a collection by its id: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs.

    Every id may be followed by `,queries=FILE`, whose queries are added (as with the argument
    `queries`), by `,qrels=PATH`, a judgement file or a folder of them, named by their splits, and
    by `,view=VIEW`, other texts of the same ids, as `Collection.view` describes them.

    Raises:
        ConfigError: the id has another form, or its kind or argument is unknown.
        DataError: the collection's files are malformed.
        MissingExtra: its kind needs a package that is not installed.

    """
    spec = os.fspath(spec)
    bare, options = take_options(spec, OPTIONS)
    kind, colon, argument = bare.partition(":")
    path = Path(bare).expanduser()
    if not colon and path.exists():
        kind = "beir" if [*path.glob("corpus.jsonl*")] else "docs"
        raise ConfigError(f"{spec!r} is a path, not a collection's id. Write {kind}:{spec}.")
    if not argument:
        raise ConfigError(
            "a collection is written beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs, "
            f"not {spec!r}."
        )
    collection: Collection = COLLECTIONS[kind](argument)
    if "qrels" in options:
        collection = collection.with_splits(_judgement_files(options["qrels"]))
    collection.spec = spec if queries is None else f"{spec},queries={queries}"
    for file in (options.get("queries"), queries):
        if file is not None:
            content = read_queries(str(file))
            log_counts(str(file), content)
            collection, alike = collection._merged(content, str(file))
            _log_splits(collection, alike)
    return collection.view(options.get("view"))


def load_docs(spec: str) -> Texts:
    """Load the documents of a collection by its id, ignoring its queries and judgements."""
    bare, options = take_options(spec, OPTIONS)
    return load_collection(bare).view(options.get("view")).docs


def _log_splits(collection: Collection, alike: set[str]) -> None:
    """Log how many queries of a file are queries of a split."""
    for split in collection.splits if alike else ():
        if count := len(alike & collection.qrels(split).keys()):
            log.info(
                f"{count:,} of them are also queries of the split {split!r}"
                + ("." if split == "train" else ": do not evaluate on it what they train.")
            )


def _judgement_files(path: str) -> dict[str, Path]:
    """Return the judgement files of `,qrels=PATH` by split."""
    location = Path(path).expanduser()
    files = sorted(location.glob("*.tsv")) if location.is_dir() else [location]
    if not files or not files[0].is_file():
        raise ConfigError(f"qrels={path}: there is no judgement file ({location.absolute()}).")
    return {file.stem: file for file in files}
