"""Queries of a file, judged or not: a query log beside the queries that a collection has.

    log.txt     one query a line
    log.jsonl   {"_id": "q1", "text": "..."}, one a line
    log.tsv     id and text, with or without a header (a single column: one query a line)
    log.csv     with a header
    log.parquet

All but Parquet may be gzipped. Columns are guessed from common names, or named behind the file:
`log.csv,id=session,text=utterance`. A query without an id has the hash of its text as its id, so
that the order of the lines does not matter; one that the collection has keeps the id it has there.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.manifest import digest
from retrodistill.base.types import Doc
from retrodistill.data.datasets.options import path_options
from retrodistill.data.datasets.tables import (
    QUERY,
    QUERY_ID,
    SUFFIXES,
    column,
    kind_of,
    needed,
    table_rows,
)
from retrodistill.data.datasets.texts import Texts, TextSource, write_texts
from retrodistill.data.lines import decoded, numbered_lines

OPTIONS = ("id", "text")
FORMS = "one query a line (.txt), or columns (.jsonl, .tsv, .csv, .parquet)"


@dataclass(slots=True)
class QueryFile:
    """The queries of a file, each once, and how many of its lines gave none."""

    queries: list[Doc] = field(default_factory=list)
    empty: int = 0
    repeated: int = 0


def query_id(text: str) -> str:
    """Return the id of a query that has none: a hash of its words."""
    return f"q-{digest(_plain(text))[:16]}"


def query_file(texts: Sequence[str]) -> QueryFile:
    """Return texts as queries, as a file of one query a line would be read.

    Raises:
        DataError: a query is empty.

    """
    for place, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"query {place + 1} is empty: write what to search for.")
    return QueryFile(
        [*{query_id(text): Doc(query_id(text), "", _plain(text)) for text in texts}.values()]
    )


def read_queries(file: str) -> QueryFile:
    """Return the queries of a file, perhaps with options behind its name.

    Raises:
        ConfigError: there is no such file, or it is of an unknown kind.
        DataError: a line is malformed, an id has two texts, or there is no query at all.

    """
    path, options = path_options(file, OPTIONS, where=f"--queries {file}")
    if not path.is_file():
        raise ConfigError(f"--queries {file}: there is no such file ({path.absolute()}).")
    if kind_of(path) not in (".txt", "", *SUFFIXES):
        raise ConfigError(f"--queries {file}: give a file with {FORMS}.")
    result = QueryFile()
    known: dict[str, str] = {}
    for place, id, text in _numbered_queries(path, options):
        text = _plain(text)
        if not text:
            result.empty += 1
            continue
        query = Doc(query_id(text) if id is None else id, "", text)
        if query.id not in known:
            known[query.id] = text
            result.queries.append(query)
        elif known[query.id] == text:
            result.repeated += 1
        else:
            raise DataError(
                f"{place}: the query id {query.id!r} has the text {text[:60]!r}, but above "
                f"{known[query.id][:60]!r}. Give each query an id of its own."
            )
    if not result.queries:
        raise DataError(f"{path} holds no query ({result.empty:,} lines are empty).")
    return result


def _numbered_queries(
    path: Path, options: Mapping[str, str]
) -> Iterator[tuple[str, str | None, str]]:
    """Yield the place, the id if it has one, and the text of each query."""
    if kind_of(path) not in SUFFIXES:
        for number, line in numbered_lines(path):
            place = f"{path}:{number}"
            yield place, None, decoded(place, line)[0]
        return
    headers = (*QUERY, *QUERY_ID, *map(str.lower, options.values()))
    id_column = text_column = ""
    names: tuple[str, ...] = ()
    for place, record in table_rows(path, headers if kind_of(path) == ".tsv" else ()):
        if tuple(record) != names:
            names = tuple(record)
            id_column, text_column = _columns(path, names, options)
        yield place, _id(record, id_column, place), _text(record, text_column, place)


def _columns(path: Path, names: Sequence[str], options: Mapping[str, str]) -> tuple[str, str]:
    """Return the columns of id and text; the first is empty where the file has no ids."""
    if names in (("1",), ("1", "2")):  # a .tsv file without a header
        return ("" if len(names) == 1 else "1"), names[-1]
    hint = f"Name it: --queries {path},text=COLUMN."
    text = column(names, QUERY, options.get("text"), role="text", path=path)
    text = needed(text, names, role="text of a query", path=path, hint=hint)
    rest = [name for name in names if name != text]
    return column(rest, QUERY_ID, options.get("id"), role="id", path=path) or "", text


def _id(record: Mapping[str, Any], name: str, place: str) -> str | None:
    value = record.get(name) if name else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise DataError(f"{place}: the id of a query must be a word or a number, not {value!r}.")
    return str(value)


def _text(record: Mapping[str, Any], name: str, place: str) -> str:
    value = record[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{place}: the text of a query must be a string, but it is {value!r}.")
    return value


def merged_queries(
    texts: Texts, file: QueryFile, *, name: str
) -> tuple[Texts, list[str], set[str]]:
    """Return a collection's queries followed by a file's, and the ids of the file's.

    The third are the ids of the collection's queries that say what one of the file's says. A query
    without an id of its own is that query then, and is not added.

    Raises:
        DataError: an id stands for one text in the collection and for another one in the file.

    """
    asked = {query.text for query in file.queries}
    alike = {plain: query.id for query in texts if (plain := _plain(query.text)) in asked}
    added, ids = [], []
    rows = texts.find([query.id for query in file.queries])
    for query, row in zip(file.queries, rows.tolist(), strict=True):
        if query.text in alike and query.id == query_id(query.text):
            ids.append(alike[query.text])
            continue
        ids.append(query.id)
        if row < 0:
            added.append(query)
        elif _plain(texts[row].text) != query.text:
            raise DataError(
                f"{name}: query {query.id!r} is {query.text[:60]!r}, but the collection has "
                f"{texts[row].text[:60]!r} under this id. Rename one of the two."
            )
    merged = table_of([*texts, *added], name=texts.name) if added else texts
    return merged, list(dict.fromkeys(ids)), set(alike.values())


def _plain(text: str) -> str:
    return " ".join(text.split())


def table_of(queries: Iterable[Doc], *, name: str) -> Texts:
    """Return a table that lives as long as this process."""
    rows = list(queries)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        stem = Path(folder) / "queries"
        source = TextSource(lambda: rows, lambda row: f"query {rows[row].id!r}")
        fingerprint = write_texts(stem, source)
        return Texts(stem, name=name, fingerprint=fingerprint)


def log_counts(file: str, queries: QueryFile) -> None:
    """Log how many queries a file gave, and how many of its lines gave none."""
    skipped = [f"{queries.empty:,} empty"] * bool(queries.empty)
    skipped += [f"{queries.repeated:,} repeated"] * bool(queries.repeated)
    more = f" ({' and '.join(skipped)} skipped)" if skipped else ""
    log.info(f"{len(queries.queries):,} queries from {file}{more}.")
