"""`sbert-labels`: rows `query, positive, negative_1, ..., label`, of texts.

The form that sentence-transformers' losses train on, as JSON lines or Parquet. There the order
of the columns counts, not their names: the first is the query, the others are documents, and the
label is the one named `label`, `labels`, `score` or `scores`: a list with a score for each
document. The first document counts as relevant only if its column is named `positive`.

Labels that are margins (a number, or one number less than documents) are refused: the scores
cannot be recovered from them.

Source: `base/data_collator.py` and `losses/margin_mse.py` of huggingface/sentence-transformers.
"""

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.base.logging import log
from retrodistill.data.store.formats.gathering import RecordFormat
from retrodistill.data.store.formats.lists import labelled, split
from retrodistill.data.store.formats.records import Relevant, ScoreRecord, place
from retrodistill.data.store.formats.rows import read_rows, write_rows
from retrodistill.data.store.formats.texts import TextCollection, docs_of, needed
from retrodistill.data.store.runs import Run

LABELS = ("label", "labels", "score", "scores")
MARGIN = (
    "is a margin (score+ - score-), from which the two scores cannot be recovered. Score the pairs "
    "again, or give the score file that the margins were computed from."
)


def records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each row, with texts."""
    for number, row in read_rows(path, (), "an object with query, positive, negative_1, label"):
        at = place(path, number)
        name = next((name for name in LABELS if name in row), None)
        if name is None:
            raise DataError(
                f"{at}: a row needs a column {', '.join(LABELS[:-1])} or {LABELS[-1]}, but it has "
                f"{', '.join(row)}."
            )
        label = row[name]
        texts = {column: text for column, text in row.items() if column != name}
        query, *docs = [text for text in texts.values() if text is not None] or [""]
        if not isinstance(label, list) or 0 < len(label) == len(docs) - 1:
            raise DataError(f"{at}: {name} {label!r:.60} {MARGIN}")
        has_positive = list(texts)[1:2] == ["positive"]
        yield ScoreRecord(number, query, docs, label, int(has_positive))


def write(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a row for each relevant document of a query, with all others as negatives.

    Every row needs the same number of negatives: where a query has fewer than another, they are
    repeated in order. Logs for how many queries.
    """
    collection = needed(collection)
    width = max((len(row.docs) - row.relevant for row in split(run, relevant)), default=0)
    schema = pa.schema(
        [
            ("query", pa.string()),
            ("positive", pa.string()),
            *((f"negative_{i + 1}", pa.string()) for i in range(width)),
            ("label", pa.list_(pa.float32())),
        ]
    )
    write_rows(path, _rows(run, relevant, collection, schema.names, width), schema)


def _rows(
    run: Run, relevant: Relevant | None, collection: TextCollection, names: list[str], width: int
) -> Iterator[dict[str, Any]]:
    repeated = 0
    for _, query, ids, scores, positives in labelled(run, relevant):
        question = docs_of(collection.queries, [query])[0].full_text
        texts = [doc.full_text for doc in docs_of(collection.docs, ids)]
        repeated += len(ids) - positives < width
        negatives = list(islice(cycle(texts[positives:]), width))
        low = list(islice(cycle(scores[positives:]), width))
        for text, high in zip(texts[:positives], scores[:positives], strict=True):
            yield dict(zip(names, (question, text, *negatives, [high, *low]), strict=True))
    if repeated:
        log.info(f"{repeated:,} queries have fewer than {width:,} negatives: theirs are repeated.")


FORMAT = RecordFormat(records, write, texts=True)
