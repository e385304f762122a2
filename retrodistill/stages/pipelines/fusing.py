"""From runs or score stores to one: what `fuse` does with its settings."""

from collections.abc import Sequence
from pathlib import Path

from retrodistill.base.config import FuseConfig, as_dict
from retrodistill.base.errors import DataError
from retrodistill.base.logging import log
from retrodistill.base.manifest import FILE, Manifest
from retrodistill.base.types import Qrels
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.qrels import read_qrels
from retrodistill.data.rankings import (
    Fusion,
    QueryWeights,
    Tuning,
    agreement,
    confidence,
    tune_fusion,
)
from retrodistill.data.store.form import SCORES
from retrodistill.data.store.runs import Run
from retrodistill.stages.scoring import store_ensemble
from retrodistill.stages.training.sources.scores import ScoreSource


def fuse(config: FuseConfig) -> Tuning | None:
    """Tune if requested, fuse, and write the run or the score store; return what was tuned."""
    runs = [Run.read(path) for path in config.run]
    check_common(config.run, [run.query_ids for run in runs])
    inputs = {f"run {number}": run.fingerprint for number, run in enumerate(runs, 1)}
    fusion, tuning, details = fusion_of(config), None, {}
    if config.tune:
        tuned_on = [Run.read(path) for path in config.tune]
        inputs |= {f"tune {number}": run.fingerprint for number, run in enumerate(tuned_on, 1)}
        tuning = _tuned(config, runs, tuned_on)
        fused = tuning.fuse(runs)
        details["tuning"] = tuning.to_dict()
    else:
        fused = fusion.fuse(
            runs, weights=config.weight or None, query_weights=_query_weights(config, runs)
        )
    if config.depth is not None:
        fused = fused.top(config.depth)
    if config.as_store:
        _store(config, fused, fusion, runs)
    else:
        fused.write(
            config.out,
            inputs=inputs,
            config=as_dict(config),
            details=details,
            overwrite=config.overwrite,
        )
    return tuning


def fusion_of(config: FuseConfig) -> Fusion:
    """Return how to fuse; a score store has its own defaults."""
    norm, pairs = config.norm, config.pairs
    if config.as_store and config.method not in ("rrf", "rerank"):
        pairs = pairs or "shared"
        norm = norm or ("min-max" if config.method == "mnz" else "z")
    return Fusion(
        method=config.method,
        norm=norm,
        pairs=pairs or "all",
        minima=config.minimum or None,
        k=config.k,
    )


def check_common(paths: Sequence[Path], queries: Sequence[Sequence[str]]) -> None:
    """Raise DataError if a run has no query in common with any other: it is of another split."""
    for number, path in enumerate(paths):
        others = set().union(*queries[:number], *queries[number + 1 :])
        if len(paths) > 1 and others.isdisjoint(queries[number]):
            examples = ", ".join(repr(ids[0]) for ids in (queries[number], sorted(others)) if ids)
            raise DataError(
                f"{path} has no query in common with the other runs (as in {examples}). Give runs "
                "of the same queries."
            )


def _tuned(config: FuseConfig, runs: Sequence[Run], tuned_on: Sequence[Run]) -> Tuning:
    """Tune the weights, and warn of queries that are fused too."""
    qrels = _judgements(config, default="dev")
    tuning = tune_fusion(
        tuned_on,
        qrels,
        method=config.method,
        norm=config.norm,
        minima=config.minimum or None,
        metric=config.metric,
        k=config.k,
    )
    tuning_queries, queries = (
        {query for run in group for query in run.query_ids} for group in (tuned_on, runs)
    )
    if both := tuning_queries & queries & set(qrels):
        log.warning(f"{len(both):,} queries of --run were tuned on: report no metric on them.")
    return tuning


def _query_weights(config: FuseConfig, runs: Sequence[Run]) -> QueryWeights | None:
    """Return the weights of each query that --query-weight asks for."""
    if config.query_weight == "confidence":
        return confidence(runs)
    if config.query_weight == "agreement":
        return agreement(runs, _judgements(config, default="train"))
    return None


def _judgements(config: FuseConfig, *, default: str) -> Qrels:
    """Return the judgements of --qrels, or of a split of --data."""
    if config.qrels is not None:
        return read_qrels(config.qrels)
    return load_collection(config.data or "").qrels(config.split or default)


def _store(config: FuseConfig, scores: Run, fusion: Fusion, runs: Sequence[Run]) -> None:
    """Write the fused scores as a score store."""
    collection = load_collection(config.data or "", queries=config.queries)
    _check_texts(collection, config.run, runs)
    store_ensemble(collection, scores, config.out, fusion=fusion, config=as_dict(config))


def _check_texts(collection: Collection, paths: Sequence[Path], runs: Sequence[Run]) -> None:
    """Raise DataError if no score store among the runs is of the collection's texts.

    The mean over several views of the queries belongs to one of them, which --data names.
    """
    stores = [
        run
        for path, run in zip(paths, runs, strict=True)
        if (path / FILE).is_file() and Manifest.read(path).kind == SCORES.kind
    ]
    faults = []
    for run in stores:
        try:
            ScoreSource(run).check_texts(collection)
        except DataError as error:
            faults.append(error)
    if stores and len(faults) == len(stores):
        raise DataError(
            f"no --run has scores of the texts of {collection.name}, to which the store would "
            "belong. Name the view of one of them: --data ID,view=VIEW."
        ) from faults[0]
