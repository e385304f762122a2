"""Which queries and documents an artifact was trained on, directly or through its sources.

A training leaves a record of its queries, as hashes of their words, and of the documents that it
took for relevant, as hashes of their texts: enough to find near doubles, and no text. An artifact
made from others carries the records of all of them in its folder `lineage/`, each a file named by
its content, and its manifest lists them: student -> index -> run -> fused run, teacher -> score
store -> student. What comes from elsewhere, or has lost its record, is `unrecorded` by name, so
that unknown training never looks like no training.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically
from retrodistill.base.logging import log
from retrodistill.base.manifest import FILE, Manifest, digest
from retrodistill.data.store.words import text_key, word_hashes

FOLDER = "lineage"
KEY = "lineage"
"""Where a manifest's details list the records."""

SCHEMA = pa.schema([("words", pa.list_(pa.uint64())), ("relevant", pa.list_(pa.uint64()))])
UNTRAINED = frozenset({"bm25", "lucene"})
"""Retrievers and teachers without training."""


@dataclass(frozen=True)
class Record:
    """The queries and relevant documents of one training."""

    fingerprint: str
    """Hash of the content; equal ones are equal records."""

    about: Mapping[str, str] = field(compare=False)
    """Names of the collection, the split, and the student that was trained."""

    table: pa.Table = field(compare=False, repr=False)
    """A row a query: hashes of its words, and of its relevant documents' texts."""

    @classmethod
    def of(
        cls, queries: Iterable[str], relevant: Iterable[Sequence[str]], **about: str
    ) -> "Record":
        """Return the record of queries' texts and of the texts of each one's documents."""
        keys: dict[str, int] = {}
        rows = [
            sorted(
                {keys[doc] if doc in keys else keys.setdefault(doc, text_key(doc)) for doc in docs}
            )
            for docs in relevant
        ]
        words = [word_hashes(query).tolist() for query in queries]
        return cls.of_table(pa.table([words, rows], schema=SCHEMA), about)

    @classmethod
    def of_table(cls, table: pa.Table, about: Mapping[str, str]) -> "Record":
        """Return the record of a table of hashes."""
        columns = [table[name].combine_chunks() for name in SCHEMA.names]
        columns_bytes = [
            values.to_numpy(zero_copy_only=False).astype("<u8").tobytes()
            for column in columns
            for values in (column.value_lengths(), column.flatten())
        ]
        return cls(digest(json.dumps(sorted(about.items())), *columns_bytes), dict(about), table)

    @property
    def documents(self) -> int:
        """Return how many documents it calls relevant."""
        return len(np.unique(self.table["relevant"].combine_chunks().flatten().to_numpy()))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of it in a manifest."""
        counts = {"queries": len(self.table), "documents": self.documents}
        return {"fingerprint": self.fingerprint, **self.about, **counts}


@dataclass(frozen=True)
class Lineage:
    """The records of all trainings behind something, each once."""

    records: tuple[Record, ...] = ()

    unrecorded: tuple[str, ...] = ()
    """Names of models and runs whose training is not known."""

    def __or__(self, other: "Lineage") -> "Lineage":
        """Return the lineage of what is made from both."""
        return Lineage(
            tuple(dict.fromkeys(self.records + other.records)),
            tuple(dict.fromkeys(self.unrecorded + other.unrecorded)),
        )

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the records into an artifact's folder; return what its manifest's details say."""
        for record in self.records:
            sink = pa.BufferOutputStream()
            metadata = {"about": json.dumps(record.about, ensure_ascii=False)}
            table = record.table.replace_schema_metadata(metadata)
            pq.write_table(table, sink, compression="zstd")
            write_atomically(_file(folder, record.fingerprint), sink.getvalue().to_pybytes())
        records = [record.to_dict() for record in self.records]
        return {KEY: {"records": records, "unrecorded": list(self.unrecorded)}}


UNKNOWN = Lineage(unrecorded=("given scores",))
"""Of a run that was made in Python, or read from a file outside of any artifact."""


def joined(lineages: Iterable[Lineage]) -> Lineage:
    """Return the lineage of what is made from several artifacts."""
    return reduce(Lineage.__or__, lineages, Lineage())


def lineage_of(folder: Path) -> Lineage:
    """Return the lineage that an artifact's folder carries; without a record, its name is noted."""
    folder = Path(folder)
    try:
        manifest = Manifest.read(folder)
    except DataError:
        return Lineage(unrecorded=(folder.name,))
    return lineage_in(folder, manifest)


def lineage_in(folder: Path, manifest: Manifest) -> Lineage:
    """Return the lineage of an artifact whose manifest was read already."""
    name = Path(folder).resolve().name
    try:
        listed = manifest.details[KEY]
        fingerprints = [str(entry["fingerprint"]) for entry in listed["records"]]
        unrecorded = [str(name) for name in listed["unrecorded"]]
    except (KeyError, TypeError):
        return Lineage(unrecorded=(name,))
    files = {fingerprint: _read(_file(folder, fingerprint)) for fingerprint in fingerprints}
    records = [
        record
        for fingerprint, record in files.items()
        if record is not None and record.fingerprint == fingerprint
    ]
    if len(records) < len(files):
        log.info(f"{folder}: a record of its training is missing or damaged in {FOLDER}/.")
        unrecorded.append(name)
    return Lineage(tuple(records), tuple(unrecorded))


def model_lineage(model: str | Path) -> Lineage:
    """Return the lineage of a model's folder or hub id."""
    path = Path(model)
    if (path / FILE).is_file():
        return lineage_of(path)
    whole = path.resolve().parent  # a head of a student lies in its folder
    if path.is_dir() and (whole / FILE).is_file() and Manifest.read(whole).kind == "student":
        return lineage_of(whole)
    return Lineage(unrecorded=(path.resolve().name if path.exists() else str(model),))


def spec_lineage(spec: str) -> Lineage:
    """Return the lineage of a retriever or teacher, as in `bm25`, `dense:MODEL` or `run:PATH`."""
    kind, _, argument = spec.partition(":")
    if kind in UNTRAINED:
        return Lineage()
    return model_lineage(argument) if argument else Lineage(unrecorded=(spec,))


def own_lineage(component: object) -> Lineage:
    """Return the lineage of a teacher, an encoder or a store; without one, its type is noted."""
    lineage = getattr(component, "lineage", None)
    return (
        lineage if isinstance(lineage, Lineage) else Lineage(unrecorded=(type(component).__name__,))
    )


def _file(folder: Path, fingerprint: str) -> Path:
    return Path(folder) / FOLDER / f"{fingerprint[:32]}.parquet"


def _read(path: Path) -> Record | None:
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"about"])
        return Record.of_table(table.select(SCHEMA.names).cast(SCHEMA), about)
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
