"""Filling of score stores: missing pairs are scored or compared, shard by shard."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Comparer, Teacher, reads_of
from retrodistill.data.store.lineage import own_lineage
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import PreferenceStore, ScoreStore
from retrodistill.models.inference.cuts import counted_cuts
from retrodistill.models.teachers.runs import RunTeacher
from retrodistill.stages.scoring.candidates import comparisons_between, edges_of, pairs_of
from retrodistill.stages.scoring.missing import missing_shards

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def score_candidates(
    collection: "Collection",
    candidates: Run,
    teacher: Teacher,
    out: Path,
    *,
    shard_pairs: int = 4096,
    config: Mapping[str, Any] | None = None,
) -> ScoreStore:
    """Score every candidate that `out` has no score of yet, and return the store.

    The same call may run in several processes at once: they share the shards.

    Raises:
        DataError: there are no candidates, an id is not in the collection, a score is not finite,
            or `out` holds the scores of another teacher.

    """
    if not len(candidates):
        raise DataError("the candidates hold no pair to score.")
    store = ScoreStore(
        out,
        teacher=teacher.fingerprint,
        inputs={"candidates": candidates.fingerprint},
        config=config,
        details={"scale": teacher.scale, "unit": teacher.unit},
    )
    store.join_lineage(own_lineage(teacher) | candidates.lineage)
    reads = reads_of(teacher)
    with counted_cuts("texts"):
        for shard in missing_shards(
            store, collection, candidates.table, reads=reads, rows=shard_pairs, unit=teacher.unit
        ):
            shard.write(teacher.score(pairs_of(collection, shard.rows)))
    store.record(candidates=candidates.fingerprint, config=config)
    return store


def store_scores(
    collection: "Collection",
    scores: Run,
    out: Path,
    *,
    scale: str = "unknown",
    config: Mapping[str, Any] | None = None,
) -> ScoreStore:
    """Keep scores that exist already, imported or computed, as a store; return it."""
    return score_candidates(collection, scores, RunTeacher(scores, scale=scale), out, config=config)


def compare_candidates(
    collection: "Collection",
    candidates: Run,
    comparer: Comparer,
    out: Path,
    *,
    opponents: int = 4,
    shard_pairs: int = 4096,
    config: Mapping[str, Any] | None = None,
) -> PreferenceStore:
    """Compare each candidate with the next `opponents` of its query (0: with all), and store.

    The list is taken as a ring, so that each document has the same number of opponents before
    and after it. A comparer asks in both orders, so an edge is stored in one direction only.

    Raises:
        ConfigError: the teacher does not compare.
        DataError: no query has two candidates, an id is not in the collection, a preference is
            not finite, or `out` holds the preferences of another teacher.

    """
    if not isinstance(comparer, Comparer):
        raise ConfigError(
            f"{type(comparer).__name__} scores single documents: preferences need a pairwise "
            "teacher (pairwise:MODEL, llm-pairwise:MODEL)."
        )
    edges = edges_of(candidates, opponents)
    store = PreferenceStore(
        out,
        teacher=comparer.fingerprint,
        inputs={"candidates": candidates.fingerprint},
        config=config,
    )
    store.join_lineage(own_lineage(comparer) | candidates.lineage)
    with counted_cuts("texts"):
        for shard in missing_shards(
            store, collection, edges, reads=reads_of(comparer), rows=shard_pairs
        ):
            shard.write(comparer.compare(comparisons_between(collection, shard.rows)))
    store.record(candidates=candidates.fingerprint, config=config)
    return store
