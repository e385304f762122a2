"""Click logs as relevance judgements: which documents were clicked for which queries.

    query,doc_id,clicks
    how do I reset it,guide.md#3,12

A log is a table (.csv, .tsv, .jsonl, .parquet). Its columns are guessed from common names, or named
after the file: `log.csv,query=searched,doc=page,clicks=n`. Without a column of clicks, each row is
one click. Rows of the same pair are summed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets.collection import Collection
from retrodistill.data.datasets.options import path_options
from retrodistill.data.datasets.queries import query_id, read_queries
from retrodistill.data.datasets.tables import (
    QUERY,
    QUERY_ID,
    SUFFIXES,
    column,
    kind_of,
    needed,
    table_rows,
)
from retrodistill.data.qrels import Judgements

DOC = (
    "doc_id",
    "docid",
    "doc-id",
    "document_id",
    "document",
    "doc",
    "corpus-id",
    "corpus_id",
    "pid",
    "passage_id",
    "item_id",
    "url",
    "page",
)
CLICKS = ("clicks", "click_count", "num_clicks", "n_clicks", "count", "clicked", "n", "score")
OPTIONS = ("query", "doc", "clicks")
NAMED = 3
"""Number of unknown ids that a message lists."""

Resolver = Callable[[str], str | None]
"""Returns the id of a query or document as a log names it, or None if it is unknown."""


@dataclass(slots=True)
class Clicks:
    """The clicks of each query on each document, and the rows that were skipped."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: int = 0
    unclicked: int = 0
    unknown: dict[str, list[str]] = field(default_factory=dict)
    """Names in the skipped rows: queries and documents that the collection does not have."""

    def judgements(self, *, least: int, graded: bool) -> Judgements:
        """Return a grade for each pair with `least` clicks or more: 1, or its number of clicks."""
        graded_pairs = {
            query: {doc: n if graded else 1 for doc, n in docs.items() if n >= least}
            for query, docs in self.counts.items()
        }
        return {query: docs for query, docs in graded_pairs.items() if docs}

    def summary(self, qrels: Judgements) -> str:
        """Return a sentence with the numbers of rows, pairs, skipped rows and judgements."""
        pairs = sum(map(len, self.counts.values()))
        count = sum(map(len, qrels.values()))
        parts = [f"{self.rows:,} rows, {pairs:,} pairs of a query and a document with clicks"]
        if self.unclicked:
            parts.append(f"{self.unclicked:,} rows without a click skipped")
        for kind, names in self.unknown.items():
            examples = ", ".join(map(repr, list(dict.fromkeys(names))[:NAMED]))
            parts.append(f"{len(names):,} rows of unknown {kind} skipped ({examples}, ...)")
        if pairs > count:
            parts.append(f"{pairs - count:,} pairs with fewer clicks skipped")
        parts.append(f"{count:,} judgements of {len(qrels):,} queries")
        return "; ".join(parts) + "."


def read_clicks(file: str, *, query_of: Resolver, doc_of: Resolver) -> Clicks:
    """Return the clicks of a log; `query_of` and `doc_of` return the ids.

    Raises:
        ConfigError: the file does not exist, or is of an unknown kind.
        DataError: a row is malformed, or a number of clicks is not a whole number of at least 0.

    """
    path, options = path_options(file, OPTIONS, where=f"--clicks {file}")
    if not path.is_file():
        raise ConfigError(f"--clicks {file}: there is no such file ({path.absolute()}).")
    if kind_of(path) not in SUFFIXES:
        raise ConfigError(f"--clicks {file}: give a table ({', '.join(SUFFIXES)}).")
    headers = (*QUERY_ID, *QUERY, *DOC, *map(str.lower, options.values()))
    clicks = Clicks()
    names: tuple[str, ...] = ()
    columns: tuple[str, str, str | None] = ("", "", None)
    for location, record in table_rows(path, headers if kind_of(path) == ".tsv" else ()):
        if tuple(record) != names:
            names = tuple(record)
            columns = _columns(path, names, options)
        clicks.rows += 1
        count = 1 if columns[2] is None else _count(record[columns[2]], location)
        query, doc = (_name(record[name], name, location) for name in columns[:2])
        if not count:
            clicks.unclicked += 1
            continue
        ids = query_of(query), doc_of(doc)
        if ids[0] is None:
            clicks.unknown.setdefault("queries", []).append(query)
        elif ids[1] is None:
            clicks.unknown.setdefault("documents", []).append(doc)
        else:
            docs = clicks.counts.setdefault(ids[0], {})
            docs[ids[1]] = docs.get(ids[1], 0) + count
    return clicks


def resolvers(collection: Collection | None, queries: str | None) -> tuple[Resolver, Resolver]:
    """Return functions from the names in a log to the ids of queries and documents.

    A query may be named by its id or by its text. Without a collection and a file of queries, every
    query is known, under the id that `query_id` gives its text. Without a collection, every
    document is known. A document that is cut into passages is known under its own id.
    """
    texts = collection.queries if collection is not None else None
    ids_by_text: dict[str, str] = {}
    if texts is not None:
        ids_by_text = {" ".join(query.text.split()): query.id for query in texts}
    elif queries is not None:
        ids_by_text = {query.text: query.id for query in read_queries(queries).queries}
    ids = set(ids_by_text.values())

    def query_of(name: str) -> str | None:
        plain = " ".join(name.split())
        if texts is None and queries is None:
            return query_id(plain)
        return name if name in ids else ids_by_text.get(plain)

    def doc_of(name: str) -> str | None:
        if collection is None or name in collection.docs or f"{name}#1" in collection.docs:
            return name
        return None

    return query_of, doc_of


def _columns(
    path: Path, names: Sequence[str], options: Mapping[str, str]
) -> tuple[str, str, str | None]:
    if names in (("1", "2"), ("1", "2", "3")):  # a .tsv file without a header
        return names[0], names[1], names[2] if len(names) == 3 else None
    hint = f"Name it: --clicks {path},query=COLUMN,doc=COLUMN,clicks=COLUMN."
    query = column(names, (*QUERY_ID, *QUERY), options.get("query"), role="query", path=path)
    query = needed(query, names, role="query", path=path, hint=hint)
    remaining = [name for name in names if name != query]
    doc = column(remaining, DOC, options.get("doc"), role="document", path=path)
    doc = needed(doc, names, role="document", path=path, hint=hint)
    remaining = [name for name in remaining if name != doc]
    return query, doc, column(remaining, CLICKS, options.get("clicks"), role="clicks", path=path)


def _name(value: Any, name: str, location: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise DataError(f"{location}: {name} must be a word or a number, but it is {value!r}.")
    text = str(value).strip()
    if "\t" in text or "\n" in text:
        raise DataError(f"{location}: {name} holds a tab or a line break: {text[:60]!r}.")
    return text


def _count(value: Any, location: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number >= 0 or not number.is_integer():
        raise DataError(
            f"{location}: the clicks must be a whole number of at least 0, but they are {value!r}."
        )
    return int(number)
