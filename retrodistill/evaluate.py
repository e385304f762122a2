"""Measure runs against judgements, side by side, with a paired test.

    python -m retrodistill.evaluate --data beir:scifact --split test \\
        --run runs/bm25 --run runs/kl --metrics ndcg@10,mrr@10,recall@100 --json report.json
    python -m retrodistill.evaluate --qrels qrels.txt --run system.trec \\
        --metrics "map@100(rel=2),ndcg@10" --per-query --json report.json

Every judged query counts; one that a run lacks counts 0.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from retrodistill.command import run
from retrodistill.config import EvaluateConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(EvaluateConfig, evaluate, verb="evaluate", about=__doc__, words=words)


def evaluate(config: EvaluateConfig) -> None:
    """Measure, print the table and the tests, and write the JSON."""
    from retrodistill.datasets import load_collection
    from retrodistill.evaluation import evaluate_runs
    from retrodistill.reporting.tables import print_table
    from retrodistill.store.qrels import read_qrels
    from retrodistill.store.runs import Run

    qrels = (
        read_qrels(config.qrels)
        if config.qrels is not None
        else load_collection(config.data or "").qrels(config.split)
    )
    runs = {name: Run.read(path) for name, path in names(config.run).items()}
    report = evaluate_runs(qrels, runs, metrics=config.metrics, test=config.test)
    metrics = list(next(iter(report.systems.values())))
    print_table(
        ("system", *metrics),
        [(name, *(f"{mean:.4f}" for mean in row.values())) for name, row in report.systems.items()],
        title=f"{len(qrels)} judged queries",
        best=metrics if len(runs) > 1 else (),
    )
    if report.tests:
        print_table(
            ("metric", "a", "b", "a - b", "p", "p (Holm)"),
            [
                (t.metric, t.a, t.b, f"{t.difference:+.4f}", f"{t.p:.4f}", f"{t.p_holm:.4f}")
                for t in report.tests
            ],
            title={"t": "paired t test", "fisher": "Fisher's randomisation test"}[config.test],
        )
    if config.json is not None:
        report.write(config.json, per_query=config.per_query)


def names(paths: Sequence[Path]) -> dict[str, Path]:
    """Return a name for each run: its folder or file stem, then suffix and parents if needed."""
    wholes = {Path(os.path.abspath(path)): path for path in paths}
    found: dict[str, Path] = {}
    for depth in range(1, max(len(whole.parts) for whole in wholes) + 1):
        for short in (_stem, lambda whole: whole.name):
            found = {
                "/".join([*whole.parts[-depth:-1], short(whole)]): path
                for whole, path in wholes.items()
            }
            if len(found) == len(wholes):
                return found
    return found


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem


if __name__ == "__main__":
    sys.exit(main())
