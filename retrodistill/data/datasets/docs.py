"""`docs:PATH`: a folder of documents, or a file: text, Markdown, HTML, PDF, .docx, manual pages,
and tables (.jsonl, .csv, .tsv, .parquet), gzipped or not.

    docs:handbook
    docs:handbook,tokens=300,overlap=50       longer passages
    docs:tickets.csv,text=body,title=subject,id=number

A document's id is its path below the folder; that of a table's row is `id` (or the number of the
row), behind the table's path and a colon in a folder. Long documents are cut into passages
(`passages`), whose ids are DOCUMENT#1, DOCUMENT#2, ... and whose titles are those of the document
and the section. Attributes are `parent` (the document), `path`, `heading`, and a table's other
columns. The options are part of what the collection is: give the same at each stage.
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
"""Goes into the cache key: raise it when a reader reads the same file otherwise."""

TOKENS, OVERLAP = 200, 20
COLUMNS = ("id", "title", "text")
OPTIONS = ("tokens", "overlap", *COLUMNS)
EXTRAS = ("pypdf", "python-docx", "lxml", "markdown-it-py")
"""What reads files: with another version of it they are read again."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Where documents lie, and how they are read."""

    place: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    tokens: int = TOKENS
    overlap: int = OVERLAP

    @classmethod
    def parse(cls, argument: str) -> "Documents":
        """Return them from what is behind `docs:`.

        Raises:
            ConfigError: the path does not exist, or an option is unknown or out of range.

        """
        where = f"docs:{argument}"
        place, options = path_options(argument, OPTIONS, where=where)
        if not place.exists():
            raise ConfigError(
                f"{where}: there is no such file or folder ({place.absolute()}).{near_names(place)}"
            )
        if place.is_dir() and [*place.glob("corpus.jsonl*")]:
            raise ConfigError(
                f"{where} is in the BEIR layout: docs: would read its queries as documents. Write "
                f"beir:{place}, or docs:{place}/corpus.jsonl."
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
        return cls(place.resolve(), columns, tokens, overlap)

    def key(self, files: list[SourceFile]) -> list[str]:
        """Return what changes whenever the passages may have changed."""
        states = (os.fsencode(part) for file in files for part in _state(file))
        settings = [str(self.tokens), str(self.overlap), *map(str, sorted(self.columns.items()))]
        return ["docs", EDITION, *settings, _readers(), digest(*states)]

    def passages(self, *, log: bool = False) -> Iterator[tuple[Doc, dict[str, Any]]]:
        """Yield each passage and its attributes, and log at the end what was not read.

        Raises:
            DataError: nothing could be read; why is said.
            MissingExtra: the one file needs a package that is not installed.

        """
        tally = Tally()
        files = list_files(self.place, self.columns, tally)
        single = self.place.is_file()
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
            raise DataError(f"docs:{self.place} holds no documents: {problems}.")
        if log:
            tally.log(self.place.name, self.tokens)

    def _read(self, file: SourceFile, tally: Tally, *, single: bool) -> Iterator[Document]:
        """Yield the documents of a file; one that cannot be read is counted, and alone an error."""
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
    """Return the collection of a folder or file of documents; it has no queries of its own.

    Raises:
        ConfigError: the path does not exist, or an option is unknown or out of range.
        DataError: nothing there can be read.
        MissingExtra: a single file needs a package that is not installed.

    """
    documents = Documents.parse(argument)
    files = list_files(documents.place, documents.columns, Tally())
    name = documents.place.name
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
    return f"{documents.place}: {fields['path']} ({doc.id})"


def _state(file: SourceFile) -> list[str]:
    """Return what tells one state of a file from another; nothing more of one that has gone."""
    try:
        return [file.name, *file_key(file.path)]
    except OSError:
        return [file.name]


def _readers() -> str:
    """Return the versions of what reads files."""
    return " ".join(map(_installed, EXTRAS))


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _clean(text: str) -> str:
    """Return a text without what UTF-8 cannot write or no model reads."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
