"""Measure systems on datasets, from one file: quality, speed, latency, index size, price.

    python -m retrodistill.benchmark --plan systems.yaml --out benchmark --price-per-hour 0.4

The plan has datasets and systems by name; a system's further settings are those of `embed` (model)
and of `score`'s teacher (rerank):

    datasets: {scifact: "beir:scifact", medquad: {data: "beir:medquad", split: dev}}
    systems:
      bm25: {retriever: bm25}
      small: {model: students/kl, index: hnsw, recall: 0.95, dimensions: 128}
      reranked: {rerank: "cross-encoder:MODEL", of: bm25, depth: 30}

Writes benchmark.json, benchmark.md and benchmark.html. Run it again after a crash, or with another
system in the file: what is finished, and made of the same, is kept.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import BenchmarkConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(BenchmarkConfig, benchmark, verb="benchmark", about=__doc__, words=words)


def benchmark(config: BenchmarkConfig) -> None:
    """Measure what is not measured yet, print a table for each dataset, and write the files."""
    from retrodistill.base.errors import DataError
    from retrodistill.stages import preflight
    from retrodistill.stages.pipelines.benchmark import run_benchmark
    from retrodistill.stages.reporting.results import print_unseen
    from retrodistill.stages.reporting.tables import print_table

    preflight.benchmark(config)
    found = run_benchmark(
        config.plan,
        config.out,
        k=config.k,
        timed=config.timed,
        price_per_hour=config.price_per_hour,
        overwrite=config.overwrite,
        trained_on=config.trained_on,
        near_double=config.near_double,
        **config.measuring(),
    )
    for name, evaluation in found.evaluations.items():
        metrics = next(iter(evaluation.systems.values()))
        title = f"{name}: {evaluation.settings['queries']:,} judged queries"
        print_table(found.columns(name), found.rows(name), title=title, best=[*metrics])
        print_unseen(evaluation.to_dict(), tests=False)
    if len(found.evaluations) > 1 and found.means:
        metrics = next(iter(found.means.values()))
        rows = [
            (name, *(f"{value:.4f}" for value in means.values()))
            for name, means in found.means.items()
        ]
        title = f"mean of {len(found.evaluations)} datasets"
        print_table(("system", *metrics), rows, title=title, best=[*metrics])
    print(config.out)
    if found.failures:
        cells = ", ".join(f"{system} on {dataset}" for dataset, system in found.failures)
        raise DataError(f"not measured: {cells}. The reasons stand above; the rest is kept.")


if __name__ == "__main__":
    sys.exit(main())
