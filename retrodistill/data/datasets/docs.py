"""`docs:PATH`: a folder of documents, or a file: text, Markdown, HTML, PDF, .docx, manual pages,
and tables (.jsonl, .csv, .tsv, .parquet), gzipped or not.

    docs:handbook
    docs:handbook,tokens=300,overlap=50       longer passages
    docs:tickets.csv,text=body,title=subject,id=number

A document's id is its path relative to the folder; the id of a table's row is its column `id` (or
the row number), preceded by the table's path and a colon in a folder. Long documents are cut into
passages (`passages`) with the ids DOCUMENT#1, DOCUMENT#2, ... and the titles of document and
section. Attributes are `parent` (the document), `path`, `heading`, and a table's other columns.
The options are part of the collection's identity: use the same options in every command.
"""  # noqa: D205

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.base.manifest import digest
from retrodistill.base.progress import bar
from retrodistill.base.registry import READERS
from retrodistill.base.types import Doc
from retrodistill.data.datasets.cache import cached_texts, file_key
from retrodistill.data.datasets.collection import Collection
from retrodistill.data.datasets.files import Tally, list_files, near_names, reader_name
from retrodistill.data.datasets.options import path_options
from retrodistill.data.datasets.parsed import SLOW, parsed_once
from retrodistill.data.datasets.passages import cut_sections
from retrodistill.data.datasets.readers import Document, SkippedFileError, SourceFile
from retrodistill.data.datasets.texts import TextSource, no_texts

EDITION = "1"
"""Part of the cache key: raise it when a reader gives another result for the same file."""

TOKENS, OVERLAP = 200, 20
COLUMNS = ("id", "title", "text")
OPTIONS = ("tokens", "overlap", *COLUMNS)
EXTRAS = ("pypdf", "python-docx", "lxml", "markdown-it-py")
"""Packages that read files: with another version, files are read again."""


@dataclass(frozen=True, slots=True)
class Documents:
    """A folder or file of documents, and the options for reading it."""

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    tokens: int = TOKENS
    overlap: int = OVERLAP

    @classmethod
    def parse(cls, argument: str) -> "Documents":
        """Parse the part of the id after `docs:`.

        Raises:
            ConfigError: the path does not exist, or an option is unknown or out of range.

        """
        where = f"docs:{argument}"
        path, options = path_options(argument, OPTIONS, where=where)
        if not path.exists():
            raise ConfigError(
                f"{where}: there is no such file or folder ({path.absolute()}).{near_names(path)}"
            )
        if path.is_dir() and [*path.glob("corpus.jsonl*")]:
            raise ConfigError(
                f"{where} is in the BEIR layout: docs: would read its queries as documents. Write "
                f"beir:{path}, or docs:{path}/corpus.jsonl."
            )
        numbers = {}
        for name, default in (("tokens", TOKENS), ("overlap", None)):
            text = options.get(name)
            if text is not None and not text.isdecimal():
                raise ConfigError(f"{where}: {name} must be a whole number, but it is {text!r}.")
            numbers[name] = int(text) if text is not None else default
        tokens = numbers["tokens"] or 0
        overlap = min(OVERLAP, tokens // 4) if numbers["overlap"] is None else numbers["overlap"]
        if tokens < 8:
            raise ConfigError(f"{where}: tokens must be at least 8, but it is {tokens}.")
        if overlap > tokens // 2:
            raise ConfigError(
                f"{where}: overlap must be at most half of tokens ({tokens}), but it is {overlap}."
            )
        columns = {name: options[name] for name in COLUMNS if name in options}
        return cls(path.resolve(), columns, tokens, overlap)

    def key(self, files: list[SourceFile]) -> list[str]:
        """Return a cache key that changes whenever the passages may have changed."""
        states = (os.fsencode(value) for file in files for value in _state(file))
        settings = [str(self.tokens), str(self.overlap), *map(str, sorted(self.columns.items()))]
        return ["docs", EDITION, *settings, _readers(), digest(*states)]

    def passages(self, *, log: bool = False) -> Iterator[tuple[Doc, dict[str, Any]]]:
        """Yield each passage and its attributes, and log at the end which files were skipped.

        Raises:
            DataError: no file could be read; the message gives the reasons.
            MissingExtra: a single file needs a package that is not installed.

        """
        tally = Tally()
        files = list_files(self.path, self.columns, tally)
        single = self.path.is_file()
        with bar("reading documents", len(files)) as advance:
            for file in files:
                for number, document in enumerate(self._read(file, tally, single=single)):
                    tally.files += number == 0
                    tally.documents += 1
                    for passage in self._cut(file, document, single=single):
                        tally.passages += 1
                        yield passage
                advance(1)
        if not tally.passages:
            problems = "; ".join(tally.problems()) or "it is empty"
            raise DataError(f"docs:{self.path} holds no documents: {problems}.")
        if log:
            tally.log(self.path.name, self.tokens)

    def _read(self, file: SourceFile, tally: Tally, *, single: bool) -> Iterator[Document]:
        """Yield the documents of a file; an unreadable file is counted, or raises if `single`."""
        name = reader_name(file.path) or ".txt"
        try:
            if name in SLOW:
                yield from parsed_once(file, READERS[name], f"{EDITION} {_readers()}")
            else:
                yield from READERS[name](file)
        except SkippedFileError as error:
            if single:
                raise DataError(f"{file.path} cannot be read: {error}.") from None
            tally.note(str(error), file.name)
        except MissingExtra as error:
            if single:
                raise
            tally.note("need a package", file.name)
            tally.once(str(error))
        except (DataError, OSError) as error:
            if single:
                raise DataError(f"{file.path} cannot be read: {error}") from error
            tally.note("damaged", file.name)
            tally.once(str(error))

    def _cut(
        self, file: SourceFile, document: Document, *, single: bool
    ) -> Iterator[tuple[Doc, dict[str, Any]]]:
        parent = file.name
        if document.row:
            parent = document.row if single else f"{file.name}:{document.row}"
        passages = cut_sections(document.sections, tokens=self.tokens, overlap=self.overlap)
        for number, passage in enumerate(passages, start=1):
            id = f"{parent}#{number}" if len(passages) > 1 else parent
            heading = "" if passage.heading == document.title else passage.heading
            title = " - ".join(filter(None, (document.title, heading)))
            fields = {"parent": parent, "path": file.name, "heading": heading}
            yield Doc(id, _clean(title), _clean(passage.text)), {**fields, **document.fields}


def load(argument: str) -> Collection:
    """Return the collection of a folder or file of documents, without queries.

    Raises:
        ConfigError: the path does not exist, or an option is unknown or out of range.
        DataError: no file can be read.
        MissingExtra: a single file needs a package that is not installed.

    """
    documents = Documents.parse(argument)
    files = list_files(documents.path, documents.columns, Tally())
    name = documents.path.name
    docs, queries = cached_texts(
        name,
        docs=TextSource(
            lambda: (doc for doc, _ in documents.passages(log=True)),
            partial(_place, documents),
            lambda: ((doc.id, fields) for doc, fields in documents.passages()),
        ),
        queries=no_texts(),
        key=documents.key(files),
    )
    return Collection(name, docs=docs, queries=queries, judgements={})


def _place(documents: Documents, row: int) -> str:
    doc, fields = next(islice(documents.passages(), row, None))
    return f"{documents.path}: {fields['path']} ({doc.id})"


def _state(file: SourceFile) -> list[str]:
    """Return what identifies the state of a file; only its name if it has been deleted."""
    try:
        return [file.name, *file_key(file.path)]
    except OSError:
        return [file.name]


def _readers() -> str:
    """Return the versions of the packages that read files."""
    return " ".join(map(_installed, EXTRAS))


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _clean(text: str) -> str:
    """Return a text without NUL characters and unpaired surrogates."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
