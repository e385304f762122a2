"""What each system costs: documents a second, milliseconds a query, megabytes."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrodistill.models.indexes.folder import INDEX
from retrodistill.stages.evaluation.efficiency import (
    files_bytes,
    median_ms,
    per_second,
    weights_mb,
)
from retrodistill.stages.pipelines.distil.estimate import PAID
from retrodistill.stages.pipelines.distil.layout import K, Layout, Measured

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

TIMED = 40
"""Queries that are timed, one after the other."""

EMBEDDED = 128
"""Documents that are encoded to measure the speed."""

LEXICAL = 50 * EMBEDDED
"""Documents of which BM25 is made to measure its speed."""

RERANKED = 3
"""Queries whose candidates the teachers score to measure their time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Costs of a system; None where it has no such part."""

    docs_per_second: float | None
    query_ms: float
    model_mb: float
    index_mb: float

    def beside(self, other: "Costs") -> "Costs":
        """Return the costs of both systems together, one after the other."""
        rates = [rate for rate in (self.docs_per_second, other.docs_per_second) if rate]
        return Costs(
            docs_per_second=1 / sum(1 / rate for rate in rates) if rates else None,
            query_ms=self.query_ms + other.query_ms,
            model_mb=self.model_mb + other.model_mb,
            index_mb=self.index_mb + other.index_mb,
        )


def measure_costs(
    layout: Layout, measured: Measured, trained: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Return each system's costs by its folder's name, as plain values."""
    from retrodistill.data.datasets import load_collection

    collection = load_collection(measured.data, queries=measured.queries)
    ids = collection.chosen_queries(measured.split, default=measured.split or "")
    step = max(1, len(ids) // TIMED)
    queries = collection.queries.full_texts(collection.queries.rows(ids[::step][:TIMED]))
    costs = {"bm25": _lexical(collection, queries)}
    for name in ("untouched", *trained):
        costs[name] = _dense(layout, collection, queries, name)
    costs["fused"] = costs["untouched"].beside(costs["bm25"])
    costs["distilled-bm25"] = costs["distilled"].beside(costs["bm25"])
    costs["teacher"] = _teachers(layout, collection, measured).beside(costs["fused"])
    return {name: asdict(cost) for name, cost in costs.items()}


def _lexical(collection: "Collection", queries: Sequence[str]) -> Costs:
    from retrodistill.models.retrievers.bm25 import Lexicon

    docs = collection.docs
    lexicon = Lexicon(doc.full_text for doc in docs)
    sample = docs.full_texts(np.arange(min(len(docs), LEXICAL)))
    return Costs(
        docs_per_second=per_second(Lexicon, sample),
        query_ms=median_ms(lambda text: lexicon.top(text, K), queries),
        model_mb=0.0,
        index_mb=lexicon.nbytes / 1e6,
    )


def _dense(layout: Layout, collection: "Collection", queries: Sequence[str], name: str) -> Costs:
    from retrodistill.data.datasets.texts import spread_rows
    from retrodistill.models.inference import model_path
    from retrodistill.models.students.towers import tower_bytes
    from retrodistill.stages.searching import Searcher

    folder = layout.index_of(name)
    shared = folder.name != name
    model = layout.student(name)
    searcher = Searcher.open(
        folder,
        query_model=model if shared else None,
        with_texts=False,
        precision=layout.config.precision,
    )
    sample = collection.docs.full_texts(spread_rows(len(collection.docs), EMBEDDED))
    path = Path(model_path(model))
    towers = tower_bytes(path) if path.is_dir() else None
    return Costs(
        docs_per_second=per_second(searcher.encoder.encode_docs, sample),
        query_ms=median_ms(lambda text: searcher.search(text, K), queries),
        model_mb=towers["query"] / 1e6 if towers else weights_mb(path),
        index_mb=files_bytes(folder / INDEX) / 1e6,
    )


def _teachers(layout: Layout, collection: "Collection", measured: Measured) -> Costs:
    """Return what the teachers' scores of a query's candidates cost, without the first stage."""
    from retrodistill.data.store.runs import Run
    from retrodistill.models.teachers import load_teacher
    from retrodistill.stages.scoring.candidates import pairs_of

    candidates = Run.read(layout.run(measured, "candidates"))
    candidates = candidates.select(candidates.query_ids[:RERANKED])
    pairs = pairs_of(collection, candidates.table)
    milliseconds = 0.0
    for spec in layout.teachers:
        # The first stage has these scores already; an endpoint has a time and a price of its own.
        if spec.partition(":")[0] in ("bm25", "run", *PAID):
            continue
        teacher = load_teacher(
            spec,
            collection,
            max_tokens=layout.config.max_tokens,
            precision=layout.config.precision,
        )
        started = time.perf_counter()
        teacher.score(pairs)
        milliseconds += 1e3 * (time.perf_counter() - started) / len(candidates.query_ids)
    return Costs(docs_per_second=None, query_ms=milliseconds, model_mb=0.0, index_mb=0.0)
