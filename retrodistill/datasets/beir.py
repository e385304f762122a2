"""`beir:PATH`: a folder of the BEIR layout.

    corpus.jsonl    {"_id": "d1", "title": "...", "text": "..."}, a document a line
    queries.jsonl   {"_id": "q1", "text": "..."}
    qrels/*.tsv     query-id, corpus-id, score, tab-separated; one file a split

Both .jsonl files may be gzipped (`.jsonl.gz`). Judgements may lack the header, and may have the
four columns of TREC (query, iteration, document, grade).
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from retrodistill.datasets.cache import cached_texts, file_key
from retrodistill.datasets.collection import Collection, Judgements
from retrodistill.datasets.records import doc_from, query_from
from retrodistill.datasets.texts import TextSource
from retrodistill.errors import ConfigError, DataError
from retrodistill.types import Doc

HEADER = ("query-id", "query_id", "qid")


def load(path: str) -> Collection:
    """Return the collection in a folder.

    Raises:
        ConfigError: the folder does not exist.
        DataError: a file is missing or not in order; file and line are named.

    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"beir:{path}: there is no such folder ({folder.absolute()}).")
    corpus, queries = _texts_file(folder, "corpus"), _texts_file(folder, "queries")
    docs, asked = cached_texts(
        folder.resolve().name,
        docs=TextSource(partial(read_texts, corpus, doc_from), partial(_place, corpus)),
        queries=TextSource(partial(read_texts, queries, query_from), partial(_place, queries)),
        key=["beir", *file_key(corpus), *file_key(queries)],
    )
    splits = sorted((folder / "qrels").glob("*.tsv"))
    return Collection(
        folder.resolve().name,
        docs=docs,
        queries=asked,
        judgements={file.stem: partial(read_qrels, file) for file in splits},
    )


def _texts_file(folder: Path, name: str) -> Path:
    for file in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if file.is_file():
            return file
    raise DataError(
        f"{folder} has no {name}.jsonl (nor {name}.jsonl.gz). The BEIR layout needs corpus.jsonl, "
        "queries.jsonl and qrels/SPLIT.tsv."
    )


def read_texts(path: Path, parse: Callable[[Any], Doc]) -> Iterator[Doc]:
    """Yield the texts of a .jsonl or .jsonl.gz file, in order; blank lines are passed over.

    Raises:
        DataError: a line is not in order; file and line are named.

    """
    for number, line in _lines(path):
        try:
            yield parse(json.loads(line))
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON in UTF-8: {error}.") from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    number = 0
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: damaged after line {number} ({error}). Fetch or compress the file again."
        ) from None


def _place(path: Path, row: int) -> str:
    """Return `file:line` of a row."""
    for index, (number, _) in enumerate(_lines(path)):
        if index == row:
            return f"{path}:{number}"
    raise AssertionError((path, row))


def read_qrels(path: Path) -> Judgements:
    """Return a judgement file as query id -> document id -> grade.

    Raises:
        DataError: a line has the wrong number of columns, a grade that is not a whole number, an
            empty id, or a grade other than that of an earlier line; file and line are named.

    """
    qrels: Judgements = {}
    for number, raw in _lines(path):
        try:
            query, doc, grade = _judgement(raw.decode().rstrip("\r\n"))
            if number == 1 and query in HEADER:
                continue
            if not query or not doc:
                raise DataError("an id is empty.")
            graded = qrels.setdefault(query, {})
            if graded.setdefault(doc, _whole(grade)) != _whole(grade):
                raise DataError(
                    f"grade {grade} for query {query!r} and document {doc!r}, but an earlier line "
                    f"says {graded[doc]}. Keep one of the two."
                )
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: not UTF-8: {error}.") from None
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from None
    return qrels


def _judgement(line: str) -> tuple[str, str, str]:
    """Return query, document and grade of a line with three columns, or TREC's four."""
    columns = line.split("\t")
    if '"' in line:  # quoted as Python's csv module does: so BEIR's own files are written
        quoted = next(csv.reader([line], delimiter="\t"))
        columns = quoted if len(quoted) in (3, 4) else columns
    if len(columns) == 1:
        columns = line.split()
    if len(columns) == 3:
        return columns[0], columns[1], columns[2]
    if len(columns) == 4:
        return columns[0], columns[2], columns[3]
    raise DataError(
        f"expected query-id, corpus-id and score (or TREC's four columns), but it has "
        f"{len(columns)} columns. Separate them by tabs."
    )


def _whole(grade: str) -> int:
    try:
        return int(grade)
    except ValueError:
        raise DataError(f"the grade must be a whole number, but it is {grade!r}.") from None
