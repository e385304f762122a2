"""`beir:PATH`: a folder of the BEIR layout.

    corpus.jsonl    {"_id": "d1", "title": "...", "text": "...", "metadata": {...}}, one a line
    queries.jsonl   {"_id": "q1", "text": "..."}
    qrels/*.tsv     query-id, corpus-id, score, tab-separated; one file a split

Both .jsonl files may be gzipped (`.jsonl.gz`). Judgements may lack the header, and may have the
four columns of TREC (query, iteration, document, grade). Other fields of a line, and those of its
`metadata`, are the attributes of a text.
"""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from retrodistill.datasets.cache import cached_texts, file_key
from retrodistill.datasets.collection import Collection, Judgements
from retrodistill.datasets.lines import numbered_lines, place_of_record, read_records
from retrodistill.datasets.records import doc_from, fields_from, query_from
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
        docs=_source(corpus, doc_from),
        queries=_source(queries, query_from),
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


def _source(path: Path, parse: Callable[[Any], Doc]) -> TextSource:
    return TextSource(
        partial(read_records, path, parse),
        partial(place_of_record, path),
        partial(read_records, path, fields_from),
    )


def read_qrels(path: Path) -> Judgements:
    """Return a judgement file as query id -> document id -> grade.

    Raises:
        DataError: a line has the wrong number of columns, a grade that is not a whole number, an
            empty id, or a grade other than that of an earlier line; file and line are named.

    """
    qrels: Judgements = {}
    for number, raw in numbered_lines(path):
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
