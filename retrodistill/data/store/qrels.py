"""Judgements: which documents are relevant to which queries, and how much."""

import math
from collections.abc import Iterator
from pathlib import Path

from retrodistill.base.errors import DataError
from retrodistill.data.store.lines import decoded, first_line, numbered_lines


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Return query id -> document id -> grade from a TREC or BEIR file, gzipped or not.

    A TREC line is `query 0 document grade`; a BEIR line is `query<tab>document<tab>grade`, below
    one line of column names. The file's first line decides which.

    Raises:
        DataError: a malformed line, a pair with two grades, or no judgement at all.

    """
    path = Path(path)
    qrels: dict[str, dict[str, int]] = {}
    for number, query, doc, grade in _rows(path):
        docs = qrels.setdefault(query, {})
        if docs.setdefault(doc, grade) != grade:
            raise DataError(
                f"{path}:{number}: query {query!r} gives document {doc!r} grade {grade}, but "
                f"{docs[doc]} before. Keep one of the two lines."
            )
    if not qrels:
        raise DataError(f"{path} holds no judgement. Give a TREC or BEIR qrels file.")
    return qrels


def _rows(path: Path) -> Iterator[tuple[int, str, str, int]]:
    """Yield (line number, query id, document id, grade)."""
    beir = len(first_line(path).split(b"\t")) == 3
    form, width = ("`query<tab>document<tab>grade`", 3) if beir else ("`query 0 document grade`", 4)
    for position, (number, line) in enumerate(numbered_lines(path)):
        parts = [p.strip() for p in line.split(b"\t")] if beir else line.split()
        if len(parts) != width or not all(parts):
            raise DataError(
                f"{path}:{number}: a line must be {form}, but this one is {line[:80]!r}."
            )
        query, doc = decoded(f"{path}:{number}", parts[0], parts[-2])
        try:
            grade = float(parts[-1])
        except ValueError:
            if beir and position == 0:
                continue
            grade = math.nan
        if not grade.is_integer():  # 1.0 is 1
            raise DataError(
                f"{path}:{number}: the grade must be a whole number, not {parts[-1].decode()!r}."
            )
        yield number, query, doc, int(grade)
