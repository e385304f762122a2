"""Titles and headings as queries: no model, and the words of whoever wrote the documents."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import digest
from retrodistill.base.registry import READERS
from retrodistill.base.types import Doc
from retrodistill.data.datasets.sections import files_of, headings_of
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.data.store.words import words_of
from retrodistill.models.writers.base import Draft, WriterOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

MOST_FILES = 3
"""Documents (files of `docs:`) that may share a title or a heading; of more, it names none."""

BOILERPLATE = frozenset(
    """
    abstract|acknowledgements|acknowledgments|appendix|background|bibliography|changelog|conclusion|
    conclusions|content|contents|copyright|description|discussion|document|document1|example|
    examples|faq|foreword|further reading|general|glossary|home|home page|index|index html|
    introduction|license|licence|main page|methods|microsoft word|name|new page|notes|overview|
    page not found|parameters|preface|prerequisites|readme|read me|references|related|requirements|
    results|returns|see also|summary|synopsis|table of contents|title|todo|toc|untitled|
    untitled document|usage|welcome
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)
"""Titles and headings, as words in lower case, that say nothing about the document."""

NUMBERING = re.compile(r"^(?:chapter|section|part|appendix)?\s*\d+(?:\.\d+)*[.):]?\s+", re.I)
"""A number before a heading: `3.1 Installation`."""

MARKS = "#¶*_`\"' \t"
"""Characters around a heading that belong to its markup."""


@dataclass(slots=True)
class Title:
    """A text that stands as a title or a heading of passages."""

    text: str
    kind: str
    rows: list[int] = field(default_factory=list)
    """Passages below it, in the collection's order."""

    files: set[str] = field(default_factory=set)
    problem: str = ""


class TitlesWriter:
    """Each distinct title and heading is one query, relevant to all passages below it.

    The source is the first of them. A heading that is one word, or that several files share, is
    preceded by the title of its file. Titles of many documents, file names and words such as
    `Introduction` name no document: they are drafts with a problem. With `per_doc`, a file keeps
    its title and headings that are spread evenly over it.
    """

    fingerprint = digest("titles")

    def __init__(self, argument: str, docs: "Texts", options: WriterOptions) -> None:
        if argument:
            raise ConfigError(f"writer titles takes no argument, but got {argument!r}.")
        self._docs = docs
        self._per_doc = options.per_doc

    def estimate(self, docs: Sequence[Doc]) -> str:
        """Return nothing: titles are only read."""
        return ""

    def write(self, docs: Sequence[Doc]) -> list[Draft]:
        """Return the titles and headings above these documents.

        Raises:
            DataError: no document of the collection has a title.

        """
        titles, by_row = self._titles
        if not titles:
            raise DataError(
                f"{self._docs.name} have no titles to make queries of. Let a language model write "
                "them (--writer causal-lm:MODEL or llm:NAME), or train on a query log "
                "(mine --queries FILE)."
            )
        rows = self._docs.rows([doc.id for doc in docs]).tolist()
        chosen = dict.fromkeys(number for row in rows for number in by_row[row])
        drafts = [self._draft(titles[number]) for number in chosen]
        return drafts if self._per_doc is None else self._within_budget(drafts, self._per_doc)

    @cached_property
    def _titles(self) -> tuple[list[Title], list[list[int]]]:
        """All titles and headings of the collection, and the numbers of those of each row."""
        files, headings = files_of(self._docs), headings_of(self._docs)
        names = [
            _plain(doc.title.removesuffix(heading).removesuffix(" - ") if heading else doc.title)
            for doc, heading in zip(self._docs, headings, strict=True)
        ]
        headings = [_plain(heading) for heading in headings]
        common = _common(zip(headings, files, strict=True))
        titles: dict[str, Title] = {}
        numbers: dict[str, int] = {}
        by_row: list[list[int]] = []
        for row, (name, heading, file) in enumerate(zip(names, headings, files, strict=True)):
            forms = [(name, "title", _problem(name, file))]
            if heading and heading != name:
                forms.append((_in_context(heading, name, common), "heading", _problem(heading, "")))
            by_row.append([])
            for text, kind, problem in forms:
                key = " ".join(words_of(text))
                if not key:
                    continue
                title = titles.setdefault(key, Title(text, kind, problem=problem))
                title.rows.append(row)
                title.files.add(file)
                by_row[-1].append(numbers.setdefault(key, len(numbers)))
        return list(titles.values()), by_row

    def _draft(self, title: Title) -> Draft:
        problem = title.problem
        if not problem and len(title.files) > MOST_FILES:
            problem = "title of many documents"
        first, *others = self._docs.ids(title.rows)
        return Draft(title.text, title.kind, first, tuple(others), problem)

    def _within_budget(self, drafts: Sequence[Draft], budget: int) -> list[Draft]:
        """Return the drafts, those of a file that exceed its budget with a problem."""
        files = files_of(self._docs)
        sources = self._docs.rows([draft.source for draft in drafts]).tolist()
        by_file: dict[str, list[int]] = {}
        for number, (draft, row) in enumerate(zip(drafts, sources, strict=True)):
            if not draft.problem:
                by_file.setdefault(files[row], []).append(number)
        over = set()
        for numbers in by_file.values():
            first, *rest = sorted(numbers, key=lambda number: drafts[number].kind != "title")
            kept = {first, *(rest[place] for place in spread_rows(len(rest), budget - 1).tolist())}
            over |= {*numbers} - kept
        return [
            replace(draft, problem="beyond --per-doc") if number in over else draft
            for number, draft in enumerate(drafts)
        ]


def _plain(text: str) -> str:
    """Return a title without numbering and marks."""
    return NUMBERING.sub("", " ".join(text.split()).strip(MARKS)).strip(MARKS)


def _common(headings: Iterable[tuple[str, str]]) -> set[str]:
    """Return the headings, as words, that several files share."""
    files: dict[str, set[str]] = {}
    for heading, file in headings:
        files.setdefault(" ".join(words_of(heading)), set()).add(file)
    return {heading for heading, names in files.items() if len(names) > 1}


def _in_context(heading: str, name: str, common: set[str]) -> str:
    """Return a heading, after its file's title if it does not say what it is about."""
    words = words_of(heading)
    if len(words) > 1 and " ".join(words) not in common:
        return heading
    return f"{name} {heading}".strip()


def _problem(text: str, file: str) -> str:
    """Return why a title or a heading names no document; empty if it does."""
    if " ".join(words_of(text)) in BOILERPLATE:
        return "boilerplate title"
    suffix, path = PurePath(text).suffix.lower(), PurePath(file)
    is_own = file.startswith(text) or path.name.startswith(text)
    is_path = bool(path.suffix) or "/" in file
    if text and " " not in text and ((suffix and suffix in READERS) or (is_own and is_path)):
        return "file name"
    return ""
