"""Scoring: candidates to a store of teacher scores, once, whatever happens meanwhile."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.config import Precision
from retrodistill.progress import bar, duration, say
from retrodistill.registry import TEACHERS
from retrodistill.scoring.ensemble import average_scores
from retrodistill.store.scores import ScoreStore, Shard
from retrodistill.types import Pairs, Teacher

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retrodistill.datasets import Collection
    from retrodistill.store.runs import Run

__all__ = ["average_scores", "load_teacher", "read_candidates", "score_candidates"]

SAMPLE = 64


def read_candidates(path: Path) -> "Run":
    """Return what is to be scored: from a run folder or file, or from a file of id triples."""
    from retrodistill.store.runs import Run
    from retrodistill.store.triples import candidates_from_triples, is_triples

    return candidates_from_triples(path) if is_triples(path) else Run.read(path)


def load_teacher(
    spec: str,
    collection: "Collection",
    *,
    max_tokens: int = 256,
    batch_tokens: int = 4096,
    precision: Precision = "auto",
) -> Teacher:
    """Return the teacher that `cross-encoder:MODEL`, `bi-encoder:MODEL` or `bm25` names.

    Raises:
        ConfigError: the name is unknown, or the model cannot be loaded.

    """
    part, argument = TEACHERS.split(spec)
    teacher: Teacher = part(
        argument,
        collection,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        precision=precision,
    )
    return teacher


def score_candidates(
    collection: "Collection",
    candidates: "Run",
    teacher: Teacher,
    out: Path,
    *,
    shard_pairs: int = 4096,
    config: Mapping[str, Any] | None = None,
) -> ScoreStore:
    """Score every candidate that `out` has no score of yet, and return the store.

    Raises:
        DataError: an id is not in the collection, a score is not finite, or `out` holds the
            scores of another teacher or collection.

    """
    store = ScoreStore(
        out,
        inputs={"collection": collection.fingerprint, "teacher": teacher.fingerprint},
        config=config,
        details={"scale": teacher.scale},
    )
    shards = store.missing(candidates, shard_pairs=shard_pairs)
    total = sum(len(shard.pairs) for shard in shards)
    say(f"{len(candidates):,} pairs, {len(candidates) - total:,} of them scored already.")
    if total:
        _check_ids(collection, candidates)
        _estimate(collection, shards, total)
    started = time.perf_counter()
    with bar("scoring", total) as advance:
        for number, shard in enumerate(shards):
            store.commit(shard, _score(collection, shard, teacher))
            advance(len(shard.pairs))
            if number == 0 and len(shards) > 1:
                rate = len(shard.pairs) / (time.perf_counter() - started)
                left = duration((total - len(shard.pairs)) / rate)
                say(f"{rate:,.0f} pairs/s in the first shard: about {left} left.")
    return store


def _score(collection: "Collection", shard: Shard, teacher: Teacher) -> "NDArray[np.float32]":
    queries, query_rows = collection.queries.distinct(shard.pairs["query_id"])
    docs, doc_rows = collection.docs.distinct(shard.pairs["doc_id"])
    return teacher.score(Pairs(queries, docs, query_rows, doc_rows))


def _check_ids(collection: "Collection", candidates: "Run") -> None:
    """Raise DataError for the first id that the collection does not know, before any work."""
    collection.queries.rows(candidates.query_ids)
    collection.docs.rows(candidates.table["doc_id"].unique().to_pylist())


def _estimate(collection: "Collection", shards: Sequence[Shard], total: int) -> None:
    """Tell what there is to do, from pairs spread over the first shard."""
    docs = shards[0].pairs["doc_id"]
    spread = range(0, len(docs), max(1, len(docs) // SAMPLE))
    rows = collection.docs.rows(docs.take(list(spread)).to_pylist())
    words = sum(len(text.split()) for text in collection.docs.full_texts(rows)) / len(rows)
    say(
        f"{total:,} pairs to score, documents of about {words:,.0f} words: about "
        f"{total * words / 1e6:,.1f} million words in {len(shards):,} shards, "
        f"{total * 12 / 1e6:,.1f} MB."
    )
