"""Settings of `embed` and `search`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from retrodistill.base.config.base import Device, Executor, Precision, at_least, check_workers
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """Settings of `embed_collection`."""

    GROUPS: ClassVar[Mapping[str, str]] = {"index": "index", "machines": "executor"}

    index: str = "flat"
    """exact, flat, sq8, binary, hnsw, cagra, ivf, ivf-pq, faiss:LINE or milvus:URI."""

    device: Device = "cpu"
    """Where FAISS learns and searches: with cuda, the lists of ivf and ivf-pq are learned on the
    GPU, and cagra is built there."""

    recall: float | None = None
    """Share of the exact ten best that must be found: sets the index's effort by measuring."""

    dimensions: int | None = None
    """Keep the first dimensions of each vector (for Matryoshka students)."""

    memory: str | None = None
    """Most memory that the index may take while it is made, as in 2GB."""

    executor: Executor = "local"
    """Where to encode the documents: in this process, in several of this machine, or on a Ray
    cluster whose machines share the cache's file system (with flock)."""

    workers: int | None = None
    """Workers of the executor (default: one a GPU; without GPUs one, with Ray one a node)."""

    def __post_init__(self) -> None:
        at_least(self, 1, "dimensions")
        check_workers(self.executor, self.workers)
        _check_recall(self.recall)
        if self.memory is not None:
            parse_bytes(self.memory)
        if self.index == "cagra" and self.device == "cpu":
            raise ConfigError(
                "--index cagra is built on a GPU: give --device cuda, or --index hnsw. Once built, "
                "it is searched on any machine."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedConfig(IndexSettings):
    """Settings of `python -m retrodistill.embed`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "collection and model": "data",
        "filters": "attributes",
        "model": "max_tokens",
        "output": "overwrite",
    }

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    queries: str | None = None
    """File of queries to measure --recall with, beside those of --data."""

    model: str
    """Student or other sentence-transformers model: a folder, a hub id or packaged:NAME."""

    out: Path
    """Index folder to write."""

    attributes: str | None = None
    """Attributes to keep for --where: names of the collection's fields, or a file with ids."""

    workload: Path | None = None
    """File of conditions, a line each, as often as they are asked: vectors lie accordingly."""

    max_tokens: int | None = None
    """Longest document, in tokens (default: the model's own limit)."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    precision: Precision = "auto"
    """Number type of the model's body."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        IndexSettings.__post_init__(self)
        at_least(self, 1, "batch_tokens")
        at_least(self, 4, "max_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """Settings of `python -m retrodistill.search`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "query": "query",
        "where to search": "index",
        "collection": "data",
        "results": "k",
        "output": "out",
    }

    query: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Queries to answer on the terminal."""

    index: Path | None = None
    """Index folder written by `retrodistill.embed`."""

    query_model: str | None = None
    """With --index: read the queries with this model, whose document tower must be that of the
    index; nothing is embedded again."""

    model: str | None = None
    """Instead of --index: search the documents of --data with this model, which embeds them into
    the cache at the first time."""

    retriever: tuple[str, ...] = ()
    """Instead of --index: bm25, lucene, dense:MODEL, sparse:MODEL or endpoint:URL over the
    documents of --data; several are fused by reciprocal ranks."""

    data: str | None = None
    """Collection to search, whose queries to search for (with --split), or whose texts to show."""

    split: str | None = None
    """Split of --data to search for; `all` is every query (default: the queries of --queries, or
    else `test`)."""

    queries: str | None = None
    """File of queries to search for: .txt (one a line), .jsonl, .tsv, .csv or .parquet."""

    k: int = 10
    """Documents to return for each query."""

    where: str | None = None
    """Condition on the attributes, as in: year >= 2020 and lang = 'en'."""

    by_document: bool = False
    """Show each document once, with its best passage; a run then holds documents. Passages are
    named DOCUMENT#NUMBER, as those of docs:PATH are."""

    sets: bool = False
    """Read AND, OR, NOT and brackets in queries, as in: "vitamin D" AND asthma NOT children."""

    device: Device = "cpu"
    """Where FAISS searches: with cuda, indexes flat, ivf and ivf-pq on the GPU."""

    recall: float | None = None
    """Another recall than the one that the index was tuned for, by what was measured then."""

    explain: bool = False
    """Say how the index searches, and what was measured of it."""

    out: Path | None = None
    """Run folder to write (needs --data)."""

    precision: Precision = "auto"
    """Number type of the model's body."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        at_least(self, 1, "k")
        _check_recall(self.recall)
        systems = [self.index is not None, self.model is not None, bool(self.retriever)]
        if sum(systems) != 1:
            raise ConfigError(
                "give one of --index FOLDER (made by embed), or --data with --model MODEL or "
                "--retriever bm25."
            )
        if self.index is None:
            self._check_without_index()
        if not self.query and self.queries is None and (self.data is None or self.out is None):
            raise ConfigError('give a query ("..."), or --data and --out to search for a split.')
        if self.out is not None and self.data is None:
            raise ConfigError("--out needs --data: the collection that the run belongs to.")
        if self.query and (self.queries is not None or self.split is not None):
            raise ConfigError("give queries on the command line, or --queries or --split.")
        if self.sets and self.by_document:
            raise ConfigError("--sets and --by-document exclude each other.")
        if self.sets and not self.query:
            raise ConfigError(
                "--sets reads operators in the queries of the command line: give one."
            )
        if self.query and self.out is not None:
            raise ConfigError("--out writes a run for the queries of --data: omit the query.")

    def _check_without_index(self) -> None:
        if self.data is None:
            raise ConfigError("--model and --retriever need --data: the documents to search.")
        if self.device != "cpu":
            raise ConfigError("--device needs --index, an index folder made by embed.")
        for name in ("where", "recall", "query_model"):
            if getattr(self, name) is not None:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} needs --index, an index folder made by embed.")
        if self.sets or self.explain:
            raise ConfigError("--sets and --explain need --index, an index folder made by embed.")


def parse_bytes(text: str, flag: str = "--memory") -> int:
    """Return the bytes that `2GB`, `512 MB` or `1.5GiB` means.

    Raises:
        ConfigError: the text is not a size.

    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", text.lower())
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"{flag} must be a size such as 2GB or 512MB, but it is {text!r}.")
    number, letter, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(letter or " "))


def _check_recall(recall: float | None) -> None:
    if recall is not None and not 0 < recall <= 1:
        raise ConfigError(f"--recall must be above 0 and at most 1, but it is {recall}.")
