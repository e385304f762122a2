"""Measure runs against judgements and compare them with a paired test.

    python -m retrodistill.evaluate --data beir:scifact --split test \\
        --run runs/bm25 --run runs/kl --metrics ndcg@10,mrr@10,recall@100 --json report.json
    python -m retrodistill.evaluate --qrels q.txt --run s.trec --metrics "map@100(rel=2),ndcg@10"
    python -m retrodistill.evaluate --data beir:scifact --run theirs.trec --trained-on train
    python -m retrodistill.evaluate --data beir:scifact --run kl --teacher scores --card kl.yaml
    python -m retrodistill.evaluate --data beir:scifact --run runs/kl \\
        --endpoint http://localhost:8080/v1,model=kl --against students/kl
    python -m retrodistill.evaluate --data beir:scifact --run kl \\
        --explain kl=bi-encoder:students/kl --explain-teacher cross-encoder:MODEL
    python -m retrodistill.evaluate --metrics help

Every judged query counts; one that a run lacks counts 0. judged@K is the share of the documents up
to rank K that have a judgement: where it is low, a system may be better than its numbers. Where
training is recorded, or named by --trained-on, the systems are also measured on the queries that it
has not seen: a gain on all queries alone may be memory. --teacher adds how closely each run follows
a teacher, --explain whether a student scores by the same words as one. --endpoint measures what a
server gives, and --against compares it with a local model.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.command import run
from retrodistill.base.config import EvaluateConfig
from retrodistill.base.logging import log

if TYPE_CHECKING:
    from retrodistill.models.retrievers.endpoints import ServedRetriever
    from retrodistill.stages.evaluation import Evaluation
    from retrodistill.stages.evaluation.systems import Systems


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status.

    0 done, 1 an endpoint does not serve the model of --against, 2 a user's mistake.
    """
    return run(EvaluateConfig, evaluate, verb="evaluate", about=__doc__, words=words)


def evaluate(config: EvaluateConfig) -> int:
    """Measure, print the tables and tests, write the JSON and the card, and return the status."""
    from retrodistill.base.files import json_text, write_atomically
    from retrodistill.data.rankings.measures import measures_help
    from retrodistill.stages import preflight
    from retrodistill.stages.evaluation.systems import read_systems
    from retrodistill.stages.reporting.results import print_results, system_names

    if config.metrics == "help":
        print(measures_help())
        return 0
    preflight.evaluate(config)
    systems = read_systems(config, system_names(config.run))
    served: dict[str, dict[str, Any]] = {}
    if config.endpoint:
        from retrodistill.models.retrievers.endpoints.address import endpoint_names
        from retrodistill.stages.evaluation.endpoints import connect

        assert systems.collection is not None
        names = endpoint_names(config.endpoint)
        retrievers = connect(systems.collection, names, taken=[*systems.runs])
        if config.against is not None and not _agree(systems, retrievers, config):
            return 1
        systems, served = _measured(systems, retrievers, names, config)
    evaluation = systems.evaluate()
    print_results(evaluation.to_dict())
    _print_times(served)
    _log_identical_ids(evaluation)
    content = evaluation.to_dict(per_query=config.per_query)
    if served:
        content["endpoints"] = served
    if config.teacher is not None:
        content["fidelity"] = _fidelity(systems, config.teacher, per_query=config.per_query)
    if config.explain:
        content["explanations"] = _explanations(systems, config)
    if config.json is not None:
        write_atomically(config.json, json_text(content).encode())
    if config.card is not None:
        _write_card(systems, content, config.card)
    return 0


def _agree(
    systems: "Systems", retrievers: "Mapping[str, ServedRetriever]", config: EvaluateConfig
) -> bool:
    """Compare each endpoint with the local model, print it, and return whether all serve it."""
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.stages.evaluation.endpoints import (
        compare_with,
        differences,
        likeness_table,
        served_encoders,
    )
    from retrodistill.stages.reporting.tables import print_table

    assert systems.collection is not None
    assert config.against is not None
    encoders = served_encoders(retrievers)
    model = DenseEncoder(config.against, precision="float32")
    found = {
        name: compare_with(encoder, model, systems.collection, systems.qrels)
        for name, encoder in encoders.items()
    }
    print_table(*likeness_table(found), title=f"served vectors beside those of {config.against}")
    sentences = [
        sentence
        for name, likeness in found.items()
        for sentence in differences(
            likeness, url=name, model=config.against, least=config.min_cosine
        )
    ]
    for sentence in sentences:
        log.error(f"retrodistill.evaluate: {sentence}")
    return not sentences


def _measured(
    systems: "Systems",
    retrievers: "Mapping[str, ServedRetriever]",
    names: Mapping[str, str],
    config: EvaluateConfig,
) -> "tuple[Systems, dict[str, dict[str, Any]]]":
    """Return the systems with the runs of endpoints, and what the JSON says of these."""
    from retrodistill.stages.evaluation.endpoints import depth_of, query_ms, served_run

    assert systems.collection is not None
    depth = config.depth or depth_of(config.metrics)
    runs, about = {}, {}
    for name, retriever in retrievers.items():
        runs[name] = served_run(
            retriever, systems.collection, systems.qrels, depth=depth, address=names[name]
        )
        times = query_ms(retriever, systems.collection, systems.qrels)
        about[name] = {"address": names[name], "depth": depth, "query_ms": times}
    return replace(systems, runs={**systems.runs, **runs}), about


def _print_times(served: Mapping[str, Mapping[str, Any]]) -> None:
    """Print how long a request with one query took at each endpoint."""
    for name, about in served.items():
        times = about["query_ms"]
        print(
            f"{name}: a query takes {times['p50']:.1f} ms (p50), {times['p95']:.1f} ms (p95), of "
            f"{times['queries']} sent one at a time."
        )


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


def _explanations(systems: "Systems", config: EvaluateConfig) -> dict[str, Any]:
    """Compare students' explanations with a teacher's, print it, and return it for the JSON."""
    from retrodistill.stages.evaluation.explanations import compare_explanations, explanation_table
    from retrodistill.stages.reporting.tables import print_table

    assert systems.collection is not None
    found = compare_explanations(systems.collection, systems.qrels, config)
    print_table(
        *explanation_table(found), title=f"explanations beside those of {config.explain_teacher}"
    )
    return {name: each.to_dict(per_pair=config.per_query) for name, each in found.items()}


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
