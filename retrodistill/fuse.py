"""Fuse runs of several systems: one list for each query, with weights given or tuned.

    python -m retrodistill.fuse --run runs/bm25 --run runs/dense --weights 0.4,0.6 \\
        --out runs/hybrid
    python -m retrodistill.fuse --run runs/bm25 --run runs/dense \\
        --tune runs/dev-bm25 --tune runs/dev-dense --data beir:medquad --tune-split dev \\
        --out runs/hybrid
    python -m retrodistill.fuse --method rerank --run runs/dense --run scores/teacher \\
        --out runs/reranked

A document that one run's list lacks counts there as the list's lowest one.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.command import run
from retrodistill.base.config import FuseConfig, as_dict


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(FuseConfig, fuse, verb="fuse", about=__doc__, words=words)


def fuse(config: FuseConfig) -> None:
    """Tune if asked to, fuse, write the run, and print its folder."""
    from retrodistill.base.logging import log
    from retrodistill.data.datasets import load_collection
    from retrodistill.data.qrels import read_qrels
    from retrodistill.data.rankings import fuse_runs, tune_fusion
    from retrodistill.data.store.runs import Run
    from retrodistill.stages import preflight
    from retrodistill.stages.reporting.tables import print_table

    preflight.fuse(config)
    runs = [Run.read(path) for path in config.run]
    check_common(config.run, [run.query_ids for run in runs])
    inputs = {f"run {number}": part.fingerprint for number, part in enumerate(runs, 1)}
    settings: dict[str, Any] = {
        "norm": config.norm,
        "minima": numbers(config.minima, "minima"),
        "k": config.k,
    }
    details: dict[str, Any] = {}
    if config.tune:
        tuned_on = [Run.read(path) for path in config.tune]
        qrels = (
            read_qrels(config.qrels)
            if config.qrels is not None
            else load_collection(config.data or "").qrels(config.tune_split)
        )
        found = tune_fusion(tuned_on, qrels, method=config.method, metric=config.metric, **settings)
        print_table(
            ("on the queries to tune on", found.metric),
            found.rows([str(path) for path in config.tune]),
            title=f"{found.queries:,} judged queries",
        )
        seen, wanted = (
            {query for part in parts for query in part.query_ids} for parts in (tuned_on, runs)
        )
        if both := seen & wanted & set(qrels):
            log.info(f"{len(both):,} queries of --run were tuned on: report no measure of them.")
        fused = found.fuse(runs)
        details["tuning"] = found.to_dict()
        inputs |= {f"tune {number}": part.fingerprint for number, part in enumerate(tuned_on, 1)}
    else:
        weights = numbers(config.weights, "weights")
        fused = fuse_runs(runs, config.method, weights=weights, **settings)
    kept = fused if config.depth is None else fused.top(config.depth)
    kept.write(
        config.out,
        inputs=inputs,
        config=as_dict(config),
        details=details,
        overwrite=config.overwrite,
    )
    print(config.out)


def check_common(paths: Sequence[Path], queries: Sequence[Sequence[str]]) -> None:
    """Raise DataError if a run has no query in common with any other: it is of another split."""
    from retrodistill.base.errors import DataError

    for number, path in enumerate(paths):
        others = set().union(*queries[:number], *queries[number + 1 :])
        if len(paths) > 1 and others.isdisjoint(queries[number]):
            examples = ", ".join(repr(ids[0]) for ids in (queries[number], sorted(others)) if ids)
            raise DataError(
                f"{path} has no query in common with the other runs (as in {examples}). Give runs "
                "of the same queries."
            )


def numbers(text: str | None, name: str) -> list[float] | None:
    """Return comma-separated numbers."""
    from retrodistill.base.errors import ConfigError

    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--{name} must be numbers such as 0.4,0.6, not {text!r}.") from None


if __name__ == "__main__":
    sys.exit(main())
