"""`pylate` and `colbert`: a query, its documents and their scores in one row, as ids.

`pylate`: rows `query_id, document_ids, scores`, as Parquet or JSON lines. The two lists may be
strings that hold a list as JSON or Python writes it. `colbert`: JSON lines
`[query, [document, score], [document, score], ...]`. Ids that are whole numbers become strings.
Neither says which documents are relevant: in ColBERT's files the first may be one that merely
ranked high.

Source: `pylate/utils/processing.py` of lightonai/pylate for the strings,
`colbert/data/examples.py` of stanford-futuredata/ColBERT for the lines.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.data.lines import write_lines
from retrodistill.data.store.formats.gathering import RecordFormat
from retrodistill.data.store.formats.lists import ranked
from retrodistill.data.store.formats.records import Relevant, ScoreRecord
from retrodistill.data.store.formats.rows import json_lines, lists_of, read_rows, write_rows
from retrodistill.data.store.formats.texts import TextCollection
from retrodistill.data.store.runs import Run

COLUMNS = ("query_id", "document_ids", "scores")
SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("document_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
    ]
)


def pylate_record(path: Path, number: int, row: dict[str, Any]) -> ScoreRecord:
    """Return the record of a row that has PyLate's columns."""
    lists = {name: _literal(row[name]) for name in COLUMNS[1:]}
    docs, scores = lists_of(path, number, lists, COLUMNS[1:])
    return ScoreRecord(number, row["query_id"], docs, scores)


def _literal(value: Any) -> Any:
    """Return the list that a string holds, or the value itself."""
    if not isinstance(value, str):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def pylate_records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each row."""
    for number, row in read_rows(path, COLUMNS, "an object with query_id, document_ids, scores"):
        yield pylate_record(path, number, row)


def write_pylate(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a row a query, best document first, as Parquet or JSON lines by the file's name."""
    rows = (dict(zip(COLUMNS, record[1:4], strict=True)) for record in ranked(run))
    write_rows(path, rows, SCHEMA)


def colbert_records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each line."""
    form = "`[query, [document, score], ...]`"
    for number, row in json_lines(path, form):
        match row:
            case [query, *pairs] if all(isinstance(p, list) and len(p) == 2 for p in pairs):
                yield ScoreRecord(number, query, [p[0] for p in pairs], [p[1] for p in pairs])
            case _:
                raise DataError(f"{path}:{number}: a line must be {form}, not {row!r:.80}.")


def write_colbert(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a line a query, best document first."""
    write_lines(
        path,
        (
            json.dumps([query, *zip(docs, scores, strict=True)], ensure_ascii=False)
            for _, query, docs, scores, _ in ranked(run)
        ),
    )


PYLATE = RecordFormat(pylate_records, write_pylate)
COLBERT = RecordFormat(colbert_records, write_colbert)
