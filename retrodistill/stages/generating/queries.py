"""Generated queries: what they are relevant to, and the folder that holds them."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrodistill.base.files import new_folder
from retrodistill.base.manifest import Manifest, digest, digest_file, digest_files

KIND = "queries"
GENERATED, HELD_OUT = "generated", "held-out"
"""Splits of the judgements."""


@dataclass(frozen=True, slots=True)
class GeneratedQuery:
    """A query, where it comes from, and the documents that are relevant to it."""

    text: str
    writer: str
    """As the user names it: `titles`, `causal-lm:MODEL`, ..."""

    kind: str
    source: str
    """Id of the document that it was written from."""

    relevant: tuple[str, ...]
    """Ids of all relevant documents, the source first, unless rankers chose another."""

    id: str
    negatives: tuple[str, ...] = ()
    """Ids of documents that are not relevant, though near."""

    @classmethod
    def of(
        cls, text: str, *, writer: str, fingerprint: str, kind: str, relevant: Sequence[str]
    ) -> "GeneratedQuery":
        """Return a query, with an id that depends on its writer, its source and its text alone."""
        id = f"g-{digest(fingerprint, relevant[0], text)[:16]}"
        return cls(text, writer, kind, relevant[0], tuple(dict.fromkeys(relevant)), id)

    def line(self) -> str:
        """Return the query as a line of queries.jsonl."""
        metadata = {"writer": self.writer, "kind": self.kind, "source": self.source}
        row = {"_id": self.id, "text": self.text, "metadata": metadata}
        return json.dumps(row, ensure_ascii=False) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedQueries:
    """Queries to train on, and those of documents that were put aside."""

    queries: Sequence[GeneratedQuery]
    held_out: Sequence[GeneratedQuery] | None = None
    """None if no documents were put aside."""

    dropped: Mapping[str, int] = field(default_factory=dict)
    """Filter -> number of queries that it dropped."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of the collection."""

    details: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.queries) + len(self.held_out or ())

    @property
    def splits(self) -> dict[str, Sequence[GeneratedQuery]]:
        """The queries by split: `generated`, and `held-out` if documents were put aside."""
        splits = {GENERATED: self.queries}
        return splits if self.held_out is None else splits | {HELD_OUT: self.held_out}

    def write(
        self, out: Path, *, config: Mapping[str, Any] | None = None, overwrite: bool = False
    ) -> None:
        """Write queries.jsonl, qrels/SPLIT.tsv and the manifest into a new folder.

        Where documents were put aside, SPLIT.jsonl are the queries of each split alone.

        Raises:
            ConfigError: the folder exists and `overwrite` is not set, or it cannot be written.

        """
        with new_folder(Path(out), overwrite=overwrite) as folder:
            lines = [query.line() for split in self.splits.values() for query in split]
            (folder / "queries.jsonl").write_text("".join(lines), encoding="utf-8")
            (folder / "qrels").mkdir()
            for split, queries in self.splits.items():
                (folder / "qrels" / f"{split}.tsv").write_text(_qrels(queries), encoding="utf-8")
                if self.held_out is not None:
                    text = "".join(query.line() for query in queries)
                    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
            files = {
                path.relative_to(folder).as_posix(): digest_file(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            counts = {split: len(queries) for split, queries in self.splits.items()}
            manifest = Manifest(
                kind=KIND,
                fingerprint=digest_files(folder),
                inputs=self.inputs,
                config=config or {},
                files=files,
                details={"queries": counts, "dropped": dict(self.dropped), **self.details},
            )
            manifest.write(folder)


def _qrels(queries: Iterable[GeneratedQuery]) -> str:
    """Return the judgements as BEIR writes them."""
    stream = io.StringIO()
    table = csv.writer(stream, delimiter="\t", lineterminator="\n")
    table.writerow(["query-id", "corpus-id", "score"])
    for query in queries:
        table.writerows([query.id, doc, 1] for doc in query.relevant)
        table.writerows([query.id, doc, 0] for doc in query.negatives)
    return stream.getvalue()
