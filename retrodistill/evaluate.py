"""Measure runs against judgements, side by side, with a paired test.

    python -m retrodistill.evaluate --data beir:scifact --split test \\
        --run runs/bm25 --run runs/kl --metrics ndcg@10,mrr@10,recall@100 --json report.json
    python -m retrodistill.evaluate --qrels qrels.txt --run system.trec \\
        --metrics "map@100(rel=2),ndcg@10" --per-query --json report.json
    python -m retrodistill.evaluate --data beir:scifact --run runs/kl --teacher scores/test
    python -m retrodistill.evaluate --metrics help

Every judged query counts; one that a run lacks counts 0. judged@K is the share of the documents up
to rank K that have a judgement: where it is low, a system may be better than its numbers.
--teacher adds how closely each run follows a teacher: on train queries first, if you wish.
"""

import json
import sys
from collections.abc import Sequence

from retrodistill.command import run
from retrodistill.config import EvaluateConfig
from retrodistill.progress import say


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(EvaluateConfig, evaluate, verb="evaluate", about=__doc__, words=words)


def evaluate(config: EvaluateConfig) -> None:
    """Measure, print the table and the tests, and write the JSON."""
    from retrodistill.arithmetic.measures import measures_help
    from retrodistill.datasets import load_collection
    from retrodistill.evaluation import evaluate_runs
    from retrodistill.evaluation.fidelity import fidelity, fidelity_table
    from retrodistill.manifest import write_atomically
    from retrodistill.reporting.results import print_results, system_names
    from retrodistill.reporting.tables import print_table
    from retrodistill.store.qrels import read_qrels
    from retrodistill.store.runs import Run

    if config.metrics == "help":
        print(measures_help())
        return
    qrels = (
        read_qrels(config.qrels)
        if config.qrels is not None
        else load_collection(config.data or "").qrels(config.split)
    )
    runs = {name: Run.read(path) for name, path in system_names(config.run).items()}
    report = evaluate_runs(qrels, runs, **config.measuring())
    print_results(report.to_dict(), queries=report.settings["queries"])
    for name, count in report.identical_ids.items():
        if count:
            say(f"{name}: documents with the id of their query: {count:,}. " + (
                "They were left out." if config.ignore_identical_ids else
                "They count here; --ignore-identical-ids leaves them out, as BEIR does."
            ))  # fmt: skip
    content = report.to_dict(per_query=config.per_query)
    if config.teacher is not None:
        teacher = Run.read(config.teacher)
        found = {name: fidelity(own, teacher) for name, own in runs.items()}
        print_table(*fidelity_table(found), title=f"fidelity to {config.teacher}")
        content["fidelity"] = {
            name: own.to_dict(per_query=config.per_query) for name, own in found.items()
        }
    if config.json is not None:
        write_atomically(config.json, (json.dumps(content, indent=2) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
