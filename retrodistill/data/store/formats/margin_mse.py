r"""`margin-mse`: `score+ <tab> score- <tab> query <tab> relevant <tab> other` a line, of ids.

The published teacher files of Margin-MSE. A relevant document occurs in many lines; where its
score differs between them, which half-precision scoring in padded batches makes likely, the file
is refused unless its mean is requested.

Source: the README of sebastian-hofstaetter/neural-ranking-kd.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.data.lines import write_lines
from retrodistill.data.store.formats.gathering import RecordFormat
from retrodistill.data.store.formats.lists import check_columns, labelled
from retrodistill.data.store.formats.records import Relevant, ScoreRecord
from retrodistill.data.store.formats.rows import tab_separated, text_lines
from retrodistill.data.store.formats.texts import TextCollection
from retrodistill.data.store.runs import Run


def records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each line: a query, a relevant document and another."""
    for number, line in text_lines(path):
        try:
            high, low, query, positive, negative = line.split("\t")
            scores = (float(high), float(low))
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: a line must be `score+ score- query relevant other`, two "
                f"numbers and three ids between tabs, but {error}: {line[:80]!r}."
            ) from None
        yield ScoreRecord(number, query, (positive, negative), scores, 1)


def tables(path: Path) -> Iterator[pa.Table]:
    """Yield the same rows as columns: of each line, the relevant document and the other."""
    number, text = pa.float64(), pa.string()
    columns = {"high": number, "low": number, "query": text, "relevant": text, "other": text}
    for batch in tab_separated(path, columns):
        lines = np.arange(len(batch))
        positions = np.stack([lines, lines + len(batch)], axis=1).ravel()
        docs, scores = (
            pa.concat_arrays([batch[upper], batch[lower]]).take(positions)
            for upper, lower in (("relevant", "other"), ("high", "low"))
        )
        yield pa.table(
            {
                "query_id": batch["query"].take(np.repeat(lines, 2)),
                "doc_id": docs,
                "score": scores,
                "relevant": positions < len(batch),
            }
        )


def write(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a line for each relevant document and each other of a query."""
    check_columns(run, path)
    write_lines(
        path,
        (
            f"{high:.9g}\t{low:.9g}\t{query}\t{positive}\t{negative}"
            for _, query, docs, scores, positives in labelled(run, relevant)
            for positive, high in zip(docs[:positives], scores[:positives], strict=True)
            for negative, low in zip(docs[positives:], scores[positives:], strict=True)
        ),
    )


FORMAT = RecordFormat(records, write, tables=tables)
