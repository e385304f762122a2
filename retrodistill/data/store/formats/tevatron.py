r"""`tevatron`: JSON lines of passages with a score each; `tevatron-run`: its search results.

A line of `tevatron` (or a row of Parquet) is an object with `query_id`, `query`,
`positive_passages` and `negative_passages`, lists of objects with `docid`, `title`, `text` and
`score`. Tevatron's training files have no `score`, except those of its distillation driver
(`train_distil`), whose form this is. The ids are taken, not the texts.

A line of `tevatron-run` is `query <tab> document <tab> score`.

Source: `examples/distill/README.md`, `retriever/dataset.py` and `retriever/driver/search.py` of
texttron/tevatron.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.data.lines import write_lines
from retrodistill.data.store.formats.gathering import RecordFormat
from retrodistill.data.store.formats.lists import check_columns, labelled, ranked
from retrodistill.data.store.formats.records import Relevant, ScoreRecord, place
from retrodistill.data.store.formats.rows import (
    lists_of,
    read_rows,
    tab_separated,
    text_lines,
    write_rows,
)
from retrodistill.data.store.formats.texts import TextCollection, docs_of, needed
from retrodistill.data.store.runs import Run

LISTS = ("positive_passages", "negative_passages")
PASSAGES = pa.list_(
    pa.struct(
        [
            ("docid", pa.string()),
            ("title", pa.string()),
            ("text", pa.string()),
            ("score", pa.float32()),
        ]
    )
)
SCHEMA = pa.schema(
    [("query_id", pa.string()), ("query", pa.string()), *((name, PASSAGES) for name in LISTS)]
)


def records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each line, with ids."""
    form = "an object with query_id, positive_passages and negative_passages"
    for number, row in read_rows(path, ("query_id", *LISTS), form):
        positive, negative = lists_of(path, number, row, LISTS)
        passages = [*positive, *negative]
        for passage in passages:
            if not isinstance(passage, dict) or not {"docid", "score"} <= passage.keys():
                raise DataError(
                    f"{place(path, number)}: each passage must have a docid and a score, but one "
                    f"is {passage!r:.80}. Tevatron's own files have no scores: a teacher must "
                    "give them first."
                )
        docs, scores = ([passage[name] for passage in passages] for name in ("docid", "score"))
        yield ScoreRecord(number, row["query_id"], docs, scores, len(positive))


def write(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a line a query that has a relevant document and another."""
    write_rows(path, _rows(run, relevant, needed(collection)), SCHEMA)


def _rows(
    run: Run, relevant: Relevant | None, collection: TextCollection
) -> Iterator[dict[str, Any]]:
    for _, query, ids, scores, positives in labelled(run, relevant):
        passages = [
            {"docid": doc.id, "title": doc.title, "text": doc.text, "score": score}
            for doc, score in zip(docs_of(collection.docs, ids), scores, strict=True)
        ]
        text = docs_of(collection.queries, [query])[0].full_text
        yield {
            "query_id": query,
            "query": text,
            "positive_passages": passages[:positives],
            "negative_passages": passages[positives:],
        }


def run_records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each line of search results."""
    for number, line in text_lines(path):
        try:
            query, doc, text = line.split("\t")
            score = float(text)
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: a line must be `query document score` between tabs, but "
                f"{error}: {line[:80]!r}."
            ) from None
        yield ScoreRecord(number, query, (doc,), (score,))


def run_tables(path: Path) -> Iterator[pa.Table]:
    """Yield the same rows as columns."""
    columns = {"query_id": pa.string(), "doc_id": pa.string(), "score": pa.float64()}
    for batch in tab_separated(path, columns):
        yield pa.table([*batch.columns, np.zeros(len(batch), np.bool_)], [*columns, "relevant"])


def write_run(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a line a document."""
    check_columns(run, path)
    write_lines(
        path,
        (
            f"{query}\t{doc}\t{score:.9g}"
            for _, query, docs, scores, _ in ranked(run)
            for doc, score in zip(docs, scores, strict=True)
        ),
    )


FORMAT = RecordFormat(records, write)
RUN = RecordFormat(run_records, write_run, tables=run_tables)
