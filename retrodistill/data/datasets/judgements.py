"""Relevance judgements (qrels): query id -> document id -> grade, and their files."""

import csv
from collections.abc import Iterable
from pathlib import Path

from retrodistill.base.errors import DataError
from retrodistill.data.datasets.lines import numbered_lines

Judgements = dict[str, dict[str, int]]

HEADER = ("query-id", "query_id", "qid")


def judgements(rows: Iterable[tuple[str, str, int]]) -> Judgements:
    """Return (query id, document id, grade) rows by query, with the highest grade of each pair."""
    qrels: Judgements = {}
    for query, doc, grade in rows:
        graded = qrels.setdefault(query, {})
        graded[doc] = max(grade, graded.get(doc, grade))
    return qrels


def read_qrels(path: Path) -> Judgements:
    """Read a judgement file as query id -> document id -> grade.

    Raises:
        DataError: a line has the wrong number of columns, a grade that is not a whole number, an
            empty id, or a grade that contradicts an earlier line; file and line are named.

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
    if '"' in line:  # quoted by Python's csv module, as in BEIR's own files
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
        try:
            if (number := float(grade)).is_integer():  # 1.0
                return int(number)
        except ValueError:
            pass
    raise DataError(f"the grade must be a whole number, but it is {grade!r}.")
