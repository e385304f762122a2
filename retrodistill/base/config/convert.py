"""Settings of `convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrodistill.base.config.base import at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """Settings of `python -m retrodistill.convert`."""

    clicks: str
    """Click log: a .csv, .tsv, .jsonl or .parquet file with a query (its id or its text), a
    document's id and, if it is counted, the clicks. Columns are guessed, or named behind it:
    log.csv,query=searched,doc=page,clicks=n."""

    out: Path
    """Judgement file to write, QRELS/SPLIT.tsv of the BEIR layout."""

    data: str | None = None
    """Collection whose queries and documents are meant; rows of others are skipped and counted."""

    queries: str | None = None
    """File of queries that are meant, with or without --data."""

    min_clicks: int = 1
    """Clicks on a document for a query from which on it is relevant to it."""

    grades: Literal["one", "clicks"] = "one"
    """Grade of a relevant document: 1, or the number of its clicks."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        at_least(self, 1, "min_clicks")
