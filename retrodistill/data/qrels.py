"""Judgements: which documents are relevant to which queries, and the files that hold them."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from retrodistill.base.errors import DataError
from retrodistill.base.manifest import Manifest
from retrodistill.data.lines import decoded, numbered_lines

Judgements = dict[str, dict[str, int]]
"""query id -> document id -> grade."""

FORMS = {3: "`query<tab>document<tab>grade`", 4: "`query 0 document grade`"}
"""Number of columns -> what a line of them is: BEIR's form, and TREC's."""

QUERY = ("query-id", "query_id", "query", "qid")
GRADE = ("score", "grade", "relevance", "rel", "label")
"""Names of columns: a first line with one of them is a header."""


def judgements(rows: Iterable[tuple[str, str, int]]) -> Judgements:
    """Return (query id, document id, grade) rows by query; of two grades, the higher holds."""
    qrels: Judgements = {}
    for query, doc, grade in rows:
        grades = qrels.setdefault(query, {})
        grades[doc] = max(grade, grades.get(doc, grade))
    return qrels


def read_qrels(path: Path, *, allow_empty: bool = False) -> Judgements:
    """Return query id -> document id -> grade from a TREC or BEIR file, gzipped or not.

    A TREC line is `query 0 document grade`; a BEIR line is `query<tab>document<tab>grade`, below
    one line of column names or none. Fields may be quoted as in a .csv file.

    Raises:
        DataError: a malformed line, a pair with two grades, or no judgement at all (unless
            `allow_empty`); file and line are named.

    """
    path = Path(path)
    qrels: Judgements = {}
    width = 0
    for number, raw in numbered_lines(path):
        place = f"{path}:{number}"
        columns = _columns(*decoded(place, raw))
        is_first, width = not width, width or len(columns)
        if len(columns) not in FORMS or len(columns) != width:
            forms = " or ".join([FORMS[width]] if width in FORMS else FORMS.values())
            raise DataError(
                f"{place}: a line must be {forms}, but this one has {len(columns)} columns: "
                f"{raw[:80]!r}. Separate them by tabs."
            )
        query, doc, text = columns[0], columns[-2], columns[-1]
        grade = _number(text)
        if is_first and grade is None and (query.lower() in QUERY or text.lower() in GRADE):
            continue
        if not query or not doc:
            raise DataError(f"{place}: an id is empty.")
        if grade is None or not grade.is_integer():  # 1.0 is 1
            raise DataError(f"{place}: the grade must be a whole number, not {text!r}.")
        grades = qrels.setdefault(query, {})
        if grades.setdefault(doc, int(grade)) != int(grade):
            raise DataError(
                f"{place}: query {query!r} gives document {doc!r} grade {int(grade)}, but an "
                f"earlier line says {grades[doc]}. Keep one of the two lines."
            )
    if not qrels and not allow_empty:
        raise DataError(f"{path} holds no judgement. Give a TREC or BEIR qrels file.")
    return qrels


def qrels_text(qrels: Mapping[str, Mapping[str, int]]) -> str:
    """Return judgements as a BEIR file."""
    rows = [
        f"{query}\t{doc}\t{grade}" for query, docs in qrels.items() for doc, grade in docs.items()
    ]
    return "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"


def made_by_machine(path: Path) -> str:
    """Return what a reader must know of a judgement file that no human made; else nothing.

    It is known by the manifest beside it, or beside its folder.
    """
    for folder in (path.absolute().parent, path.absolute().parent.parent):
        try:
            manifest = Manifest.read(folder)
        except DataError:  # none, or one of another tool
            continue
        if manifest.kind == "judgements":
            return f"judged by {manifest.details.get('judge', 'a machine')}, not by people"
        if manifest.kind == "queries":
            return "measured on queries generated from documents: it flatters lexical systems"
    return ""


def _columns(line: str) -> list[str]:
    """Return the columns of a line: between tabs, or between blanks where there is no tab."""
    columns = line.split("\t")
    if '"' in line:  # quoted as Python's csv module does: so BEIR's own files are written
        unquoted = next(csv.reader([line], delimiter="\t"))
        columns = unquoted if len(unquoted) in FORMS else columns
    return columns if len(columns) in FORMS else line.split()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else math.nan
