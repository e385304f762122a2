"""Audit teachers on a sample of labelled queries, before paying for their scores.

    python -m retrodistill.audit --data beir:scifact --split train --candidates runs/train \\
        --teacher cross-encoder:MODEL --teacher bm25 --student MODEL --json audit.json

Each teacher, and the untrained student, reranks the same candidates of a sample of labelled
queries; queries unseen in training are measured apart. Warns of a teacher that ranks worse than
the first stage or the student.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrodistill.base.command import run
from retrodistill.base.config import AuditConfig, as_dict

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.stages.evaluation import Evaluation
    from retrodistill.stages.scoring.audit import Audit

METRICS = ("ndcg@10", "mrr@10")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a user's mistake)."""
    return run(AuditConfig, audit, verb="audit", about=__doc__, words=words)


def audit(config: AuditConfig) -> None:
    """Audit the teachers, print tables and warnings, and write the JSON."""
    from retrodistill.base.files import write_atomically
    from retrodistill.data.datasets import load_collection
    from retrodistill.stages import preflight
    from retrodistill.stages.evaluation import evaluate_with_unseen
    from retrodistill.stages.reporting.results import print_unseen
    from retrodistill.stages.reporting.tables import print_table

    preflight.audit(config)
    collection = load_collection(config.data)
    teachers = _audit(config, collection)
    evaluation = evaluate_with_unseen(collection, teachers.qrels, teachers.runs, metrics=METRICS)
    means = [
        (name, *(f"{values[metric]:.4f}" for metric in METRICS))
        for name, values in evaluation.systems.items()
    ]
    print_table(("system", *METRICS), means, title="the same lists, reranked", best=METRICS)
    for columns, rows in teachers.tables():
        print_table(columns, rows)
    content = evaluation.to_dict(per_query=True)
    content["warnings"] += _warnings(teachers, evaluation)
    print_unseen(content, tests=False, notes=False)
    if config.json is not None:
        content = {"config": as_dict(config)} | content | teachers.to_dict()
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_atomically(config.json, (text + "\n").encode())


def _audit(config: AuditConfig, collection: "Collection") -> "Audit":
    """Load the models, and let each rerank the candidates of a sample of queries."""
    from retrodistill.data.store.runs import Run
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.models.teachers import load_teacher
    from retrodistill.stages.scoring.audit import audit_teachers

    body: dict[str, Any] = {"batch_tokens": config.batch_tokens, "precision": config.precision}
    teachers = {
        spec: load_teacher(spec, collection, max_tokens=config.max_tokens, **body)
        for spec in config.teacher
    }
    return audit_teachers(
        collection,
        config.split,
        Run.read(config.candidates),
        teachers,
        student=DenseEncoder(config.student, **body) if config.student else None,
        queries=config.queries,
        depth=config.depth,
        seed=config.seed,
    )


def _warnings(teachers: "Audit", evaluation: "Evaluation") -> list[str]:
    """Return a sentence for each teacher that ranks worse than what it should improve on."""
    means = {name: values[METRICS[0]] for name, values in evaluation.systems.items()}
    return [
        f"teacher {t.b} ranks worse than the {t.a}: {METRICS[0]} {means[t.b]:.4f} against "
        f"{means[t.a]:.4f} (paired t test over {len(teachers.qrels)} queries: p {t.p:.2g})."
        for t in evaluation.tests
        if t.metric == METRICS[0] and t.difference > 0
        if t.a in teachers.baselines and t.b in teachers.teachers
    ]


if __name__ == "__main__":
    sys.exit(main())
