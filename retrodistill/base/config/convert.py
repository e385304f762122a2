"""Settings of `convert`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from retrodistill.base.config.base import at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """Settings of `python -m retrodistill.convert`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "files": "out",
        "texts": "data",
        "scores": "format",
        "clicks": "min_clicks",
        "context": "context_docs",
        "output": "overwrite",
    }

    out: Path
    """What to write: a score store (--import), a score file (--export), a judgement file
    (--clicks), QRELS/SPLIT.tsv of the BEIR layout, or a view of the queries (--context),
    queries.VIEW.jsonl."""

    import_: Path | None = None
    """Score file to import, in --format: published scores, or those of another tool."""

    export: Path | None = None
    """Score store or run to export as a file in --format."""

    clicks: str | None = None
    """Click log: a .csv, .tsv, .jsonl or .parquet file with a query (its id or its text), a
    document's id and, if it is counted, the clicks. Columns are guessed, or named after the file:
    log.csv,query=searched,doc=page,clicks=n."""

    context: Path | None = None
    """Run whose best documents are written behind each query: a view for a teacher that sees what
    a retriever found (recipe quill)."""

    data: str | None = None
    """Collection of the scores or clicks. Clicks on others' documents are skipped and counted."""

    queries: str | None = None
    """File of queries beside those of --data; with --clicks also without --data."""

    format: str | None = None
    """Format of the score file; README lists them (--import: default by its content)."""

    scale: str = "unknown"
    """What imported scores are: logit, probability, cosine, dot, maxsim, bm25, ..."""

    on_conflict: Literal["refuse", "mean"] = "refuse"
    """What to do with a pair that --import gives different scores: refuse the file, or take their
    mean."""

    split: str = "train"
    """Split whose labels say what is relevant, for an --export that needs to know."""

    min_clicks: int = 1
    """Fewest clicks on a document for a query that make it relevant."""

    grades: Literal["one", "clicks"] = "one"
    """Grade of a relevant document: 1, or the number of its clicks."""

    context_docs: int = 3
    """Documents of --context behind a query."""

    context_words: int = 24
    """Words of each of them."""

    overwrite: bool = False
    """Replace the file at --out. A score store is never replaced: an import resumes it."""

    def __post_init__(self) -> None:
        at_least(self, 1, "min_clicks", "context_docs", "context_words")
        jobs = {
            "--import": self.import_ is not None,
            "--export": self.export is not None,
            "--clicks": self.clicks is not None,
            "--context": self.context is not None,
        }
        if sum(jobs.values()) != 1:
            raise ConfigError(f"give one of {', '.join(jobs)}.")
        if self.import_ is not None and self.data is None:
            raise ConfigError("--import needs --data: the collection that the scores are of.")
        if self.context is not None and self.data is None:
            raise ConfigError("--context needs --data: the collection of the queries.")
        if self.import_ is not None and self.overwrite:
            raise ConfigError(
                "--overwrite replaces files only, and --import fills a score store. Delete the "
                "store, or give another --out."
            )
        if self.export is not None and self.format is None:
            raise ConfigError("--export needs --format.")
