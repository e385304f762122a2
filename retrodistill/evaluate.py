"""Measure runs against judgements and compare them with a paired test.

    python -m retrodistill.evaluate --data beir:scifact --split test \\
        --run runs/bm25 --run runs/kl --metrics ndcg@10,mrr@10,recall@100 --json report.json
    python -m retrodistill.evaluate --qrels q.txt --run s.trec --metrics "map@100(rel=2),ndcg@10"
    python -m retrodistill.evaluate --data beir:scifact --run theirs.trec --trained-on train
    python -m retrodistill.evaluate --data beir:scifact --run kl --teacher scores --card kl.yaml
    python -m retrodistill.evaluate --metrics help

Every judged query counts; one that a run lacks counts 0. judged@K is the share of the documents up
to rank K that have a judgement: where it is low, a system may be better than its numbers. Where
training is recorded, or named by --trained-on, the systems are also measured on the queries that it
has not seen: a gain on all queries alone may be memory. --teacher adds how closely each run follows
a teacher.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.command import run
from retrodistill.base.config import EvaluateConfig
from retrodistill.base.logging import log

if TYPE_CHECKING:
    from retrodistill.stages.evaluation import Evaluation
    from retrodistill.stages.evaluation.systems import Systems


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a user's mistake)."""
    return run(EvaluateConfig, evaluate, verb="evaluate", about=__doc__, words=words)


def evaluate(config: EvaluateConfig) -> None:
    """Measure, print the tables and tests, and write the JSON and the card."""
    from retrodistill.base.files import json_text, write_atomically
    from retrodistill.data.rankings.measures import measures_help
    from retrodistill.stages import preflight
    from retrodistill.stages.evaluation.systems import read_systems
    from retrodistill.stages.reporting.results import print_results, system_names

    if config.metrics == "help":
        print(measures_help())
        return
    preflight.evaluate(config)
    systems = read_systems(config, system_names(config.run))
    evaluation = systems.evaluate()
    print_results(evaluation.to_dict())
    _log_identical_ids(evaluation)
    content = evaluation.to_dict(per_query=config.per_query)
    if config.teacher is not None:
        content["fidelity"] = _fidelity(systems, config.teacher, per_query=config.per_query)
    if config.json is not None:
        write_atomically(config.json, json_text(content).encode())
    if config.card is not None:
        _write_card(systems, content, config.card)


def _log_identical_ids(evaluation: "Evaluation") -> None:
    """Log the documents that have the id of their query, system by system."""
    dropped = evaluation.settings["ignore_identical_ids"]
    advice = (
        "They were dropped."
        if dropped
        else "They count here; --ignore-identical-ids drops them, as BEIR does."
    )
    for name, count in evaluation.identical_ids.items():
        if count:
            log.info(f"{name}: documents with the id of their query: {count:,}. {advice}")


def _fidelity(systems: "Systems", path: Path, *, per_query: bool) -> dict[str, Any]:
    """Measure how closely each run follows a teacher, print it, and return it for the JSON."""
    from retrodistill.data.store.runs import Run
    from retrodistill.stages.evaluation.fidelity import fidelity, fidelity_table
    from retrodistill.stages.reporting.tables import print_table

    teacher = Run.read(path)
    by_system = {name: fidelity(run, teacher) for name, run in systems.runs.items()}
    print_table(*fidelity_table(by_system), title=f"fidelity to {path}")
    return {name: result.to_dict(per_query=per_query) for name, result in by_system.items()}


def _write_card(systems: "Systems", content: dict[str, Any], out: Path) -> None:
    """Write the result card."""
    from retrodistill.stages.pipelines.reproduce.card import make_card
    from retrodistill.stages.pipelines.reproduce.card_files import write_card

    card = make_card(
        content,
        runs=systems.runs,
        paths=systems.paths,
        qrels=systems.qrels,
        settings=systems.settings.measuring(),
        collection=systems.collection,
        source=systems.source,
        split=systems.settings.split,
    )
    write_card(card, out)


if __name__ == "__main__":
    sys.exit(main())
