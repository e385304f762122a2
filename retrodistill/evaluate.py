"""Measure runs against judgements, side by side, with a paired test.

    python -m retrodistill.evaluate --data beir:scifact --split test \\
        --run runs/bm25 --run runs/kl --metrics ndcg@10,mrr@10,recall@100 --json report.json
    python -m retrodistill.evaluate --qrels q.txt --run s.trec --metrics "map@100(rel=2),ndcg@10"
    python -m retrodistill.evaluate --data beir:scifact --run theirs.trec --trained-on train
    python -m retrodistill.evaluate --data beir:scifact --run kl --teacher scores --card kl.yaml
    python -m retrodistill.evaluate --metrics help

Every judged query counts; one that a run lacks counts 0. judged@K is the share of the documents up
to rank K that have a judgement: where it is low, a system may be better than its numbers. Where
training is recorded, or named by --trained-on, all is measured again on the queries that it has not
seen: a gain on all alone is memory. --teacher adds how closely each run follows a teacher.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from retrodistill.base.command import run
from retrodistill.base.config import EvaluateConfig
from retrodistill.base.logging import log


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(EvaluateConfig, evaluate, verb="evaluate", about=__doc__, words=words)


def evaluate(config: EvaluateConfig) -> None:
    """Measure, print the table and the tests, and write the JSON."""
    from retrodistill.base.files import write_atomically
    from retrodistill.data.datasets import load_collection
    from retrodistill.data.qrels import read_qrels
    from retrodistill.data.rankings.measures import measures_help
    from retrodistill.data.store.runs import Run
    from retrodistill.stages import preflight
    from retrodistill.stages.evaluation import evaluate_with_unseen
    from retrodistill.stages.evaluation.fidelity import fidelity, fidelity_table
    from retrodistill.stages.pipelines.reproduce.card import make_card
    from retrodistill.stages.pipelines.reproduce.card_files import write_card
    from retrodistill.stages.reporting.results import print_results, system_names
    from retrodistill.stages.reporting.tables import print_table

    if config.metrics == "help":
        print(measures_help())
        return
    preflight.evaluate(config)
    collection = load_collection(config.data) if config.data is not None else None
    qrels = collection.qrels(config.split) if collection else read_qrels(config.qrels or Path())
    paths = system_names(config.run)
    runs = {name: Run.read(path) for name, path in paths.items()}
    report = evaluate_with_unseen(collection, qrels, runs, **config.learned(), **config.measuring())
    print_results(report.to_dict(), queries=report.settings["queries"])
    for name, count in report.identical_ids.items():
        if count:
            log.info(
                f"{name}: documents with the id of their query: {count:,}. "
                + (
                    "They were left out."
                    if config.ignore_identical_ids
                    else "They count here; --ignore-identical-ids leaves them out, as BEIR does."
                )
            )
    content = report.to_dict(per_query=config.per_query)
    if config.teacher is not None:
        teacher = Run.read(config.teacher)
        found = {name: fidelity(own, teacher) for name, own in runs.items()}
        print_table(*fidelity_table(found), title=f"fidelity to {config.teacher}")
        agreed = {name: own.to_dict(per_query=config.per_query) for name, own in found.items()}
        content["fidelity"] = agreed
    if config.json is not None:
        write_atomically(config.json, (json.dumps(content, indent=2) + "\n").encode())
    if config.card is not None:
        card = make_card(
            content,
            runs=runs,
            paths=paths,
            qrels=qrels,
            settings=config.measuring(),
            collection=collection,
            source=str(config.data or config.qrels),
            split=config.split,
        )
        write_card(card, config.card)


if __name__ == "__main__":
    sys.exit(main())
