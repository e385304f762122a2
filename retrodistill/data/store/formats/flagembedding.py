"""`flagembedding`: rows `query, pos, neg, pos_scores, neg_scores`, of texts.

JSON lines, or Parquet with the same columns. Other columns (`pos_id`, `neg_id`, `prompt`, `type`)
are ignored: the ids there need not be the collection's.

Source: `FlagEmbedding/abc/finetune/embedder/AbsDataset.py` of FlagOpen/FlagEmbedding.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.data.store.formats.gathering import RecordFormat
from retrodistill.data.store.formats.lists import labelled
from retrodistill.data.store.formats.records import Relevant, ScoreRecord, place
from retrodistill.data.store.formats.rows import lists_of, read_rows, write_rows
from retrodistill.data.store.formats.texts import TextCollection, docs_of, needed
from retrodistill.data.store.runs import Run

LISTS = ("pos", "neg", "pos_scores", "neg_scores")
SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("pos", pa.list_(pa.string())),
        ("neg", pa.list_(pa.string())),
        ("pos_scores", pa.list_(pa.float32())),
        ("neg_scores", pa.list_(pa.float32())),
    ]
)


def records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each row, with texts."""
    form = "an object with query, pos, neg, pos_scores and neg_scores"
    for number, row in read_rows(path, ("query", *LISTS), form):
        pos, neg, high, low = lists_of(path, number, row, LISTS)
        if len(pos) != len(high) or len(neg) != len(low):
            raise DataError(
                f"{place(path, number)}: {len(pos)} pos and {len(neg)} neg have {len(high)} "
                f"pos_scores and {len(low)} neg_scores. Each text needs one score."
            )
        yield ScoreRecord(number, row["query"], [*pos, *neg], [*high, *low], len(pos))


def write(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a row a query that has a relevant document and another."""
    write_rows(path, _rows(run, relevant, needed(collection)), SCHEMA)


def _rows(
    run: Run, relevant: Relevant | None, collection: TextCollection
) -> Iterator[dict[str, Any]]:
    for _, query, ids, scores, positives in labelled(run, relevant):
        texts = [doc.full_text for doc in docs_of(collection.docs, ids)]
        yield {
            "query": docs_of(collection.queries, [query])[0].full_text,
            "pos": texts[:positives],
            "neg": texts[positives:],
            "pos_scores": scores[:positives],
            "neg_scores": scores[positives:],
        }


FORMAT = RecordFormat(records, write, texts=True)
