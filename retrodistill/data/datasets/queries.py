"""Queries from a file, judged or not: a query log in addition to a collection's queries.

    log.txt     one query a line
    log.jsonl   {"_id": "q1", "text": "..."}, one a line
    log.tsv     id and text, with or without a header (a single column: one query a line)
    log.csv     with a header
    log.parquet

All but Parquet may be gzipped. Columns are guessed from common names, or named after the file:
`log.csv,id=session,text=utterance`. A query without an id gets the hash of its text as its id, so
that the order of the lines does not matter; a query that the collection has keeps its id there.
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
    """The distinct queries of a file, and the numbers of empty and repeated lines."""

    queries: list[Doc] = field(default_factory=list)
    empty: int = 0
    repeated: int = 0


def query_id(text: str) -> str:
    """Return the id of a query without one: a hash of its words."""
    return f"q-{digest(_plain(text))[:16]}"


def query_file(texts: Sequence[str]) -> QueryFile:
    """Return texts as queries, like the lines of a file with one query a line.

    Raises:
        DataError: a query is empty.

    """
    for position, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"query {position + 1} is empty. Write what to search for.")
    return QueryFile(
        [*{query_id(text): Doc(query_id(text), "", _plain(text)) for text in texts}.values()]
    )


def read_queries(file: str) -> QueryFile:
    """Return the queries of a file, whose name may be followed by options.

    Raises:
        ConfigError: the file does not exist, or is of an unknown kind.
        DataError: a line is malformed, an id has two texts, or there is no query.

    """
    path, options = path_options(file, OPTIONS, where=f"--queries {file}")
    if not path.is_file():
        raise ConfigError(f"--queries {file}: there is no such file ({path.absolute()}).")
    if kind_of(path) not in (".txt", "", *SUFFIXES):
        raise ConfigError(f"--queries {file}: give a file with {FORMS}.")
    result = QueryFile()
    texts: dict[str, str] = {}
    for location, id, text in numbered_queries(path, options):
        text = _plain(text)
        if not text:
            result.empty += 1
            continue
        query = Doc(query_id(text) if id is None else id, "", text)
        if query.id not in texts:
            texts[query.id] = text
            result.queries.append(query)
        elif texts[query.id] == text:
            result.repeated += 1
        else:
            raise DataError(
                f"{location}: the query id {query.id!r} has the text {text[:60]!r}, but above "
                f"{texts[query.id][:60]!r}. Give each query a unique id."
            )
    if not result.queries:
        raise DataError(f"{path} holds no query ({result.empty:,} lines are empty).")
    return result


def numbered_queries(
    path: Path, options: Mapping[str, str]
) -> Iterator[tuple[str, str | None, str]]:
    """Yield the location, the id or None, and the text of each query of a file."""
    if kind_of(path) not in SUFFIXES:
        for number, line in numbered_lines(path):
            place = f"{path}:{number}"
            yield place, None, decoded(place, line)[0]
        return
    headers = (*QUERY, *QUERY_ID, *map(str.lower, options.values()))
    id_column = text_column = ""
    names: tuple[str, ...] = ()
    for location, record in table_rows(path, headers if kind_of(path) == ".tsv" else ()):
        if tuple(record) != names:
            names = tuple(record)
            id_column, text_column = _columns(path, names, options)
        yield location, _id(record, id_column, location), _text(record, text_column, location)


def _columns(path: Path, names: Sequence[str], options: Mapping[str, str]) -> tuple[str, str]:
    """Return the columns of id and text; the first is empty for a file without ids."""
    if names in (("1",), ("1", "2")):  # a .tsv file without a header
        return ("" if len(names) == 1 else "1"), names[-1]
    hint = f"Name it: --queries {path},text=COLUMN."
    text = column(names, QUERY, options.get("text"), role="text", path=path)
    text = needed(text, names, role="text of a query", path=path, hint=hint)
    remaining = [name for name in names if name != text]
    return column(remaining, QUERY_ID, options.get("id"), role="id", path=path) or "", text


def _id(record: Mapping[str, Any], name: str, location: str) -> str | None:
    value = record.get(name) if name else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise DataError(f"{location}: the id of a query must be a word or a number, not {value!r}.")
    return str(value)


def _text(record: Mapping[str, Any], name: str, location: str) -> str:
    value = record[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{location}: the text of a query must be a string, but it is {value!r}.")
    return value


def merged_queries(
    texts: Texts, file: QueryFile, *, name: str
) -> tuple[Texts, list[str], set[str]]:
    """Return a collection's queries followed by a file's, the ids of the file's, and of repeats.

    The last are the ids of the collection's queries with the same text as one of the file. A query
    of the file without an id is identified with the collection's query of this text, not added.

    Raises:
        DataError: a query of the file has the id, but not the text, of one of the collection.

    """
    new_texts = {query.text for query in file.queries}
    same_text = {plain: query.id for query in texts if (plain := _plain(query.text)) in new_texts}
    added, ids = [], []
    rows = texts.find([query.id for query in file.queries])
    for query, row in zip(file.queries, rows.tolist(), strict=True):
        if query.text in same_text and query.id == query_id(query.text):
            ids.append(same_text[query.text])
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
    return merged, list(dict.fromkeys(ids)), set(same_text.values())


def _plain(text: str) -> str:
    return " ".join(text.split())


def table_of(queries: Iterable[Doc], *, name: str) -> Texts:
    """Return a table of queries that lives as long as this process."""
    rows = list(queries)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        stem = Path(folder) / "queries"
        source = TextSource(lambda: rows, lambda row: f"query {rows[row].id!r}")
        fingerprint = write_texts(stem, source)
        return Texts(stem, name=name, fingerprint=fingerprint)


_logged: set[tuple[str, int]] = set()
"""Files whose counts were logged: the steps of a pipeline each load their collection."""


def log_counts(file: str, queries: QueryFile) -> None:
    """Log the number of queries of a file, and of its empty and repeated lines, once a process."""
    if (file, len(queries.queries)) in _logged:
        return
    _logged.add((file, len(queries.queries)))
    skipped = [f"{queries.empty:,} empty"] * bool(queries.empty)
    skipped += [f"{queries.repeated:,} repeated"] * bool(queries.repeated)
    more = f" ({' and '.join(skipped)} skipped)" if skipped else ""
    log.info(f"{len(queries.queries):,} queries from {file}{more}.")
