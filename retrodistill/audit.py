"""Audit teachers, or a test split, before spending on them or trusting it.

    python -m retrodistill.audit --data beir:scifact --split train --candidates runs/train \\
        --teacher cross-encoder:MODEL --teacher bm25 --student MODEL --json audit.json
    python -m retrodistill.audit --data beir:scifact --leakage --json leakage.json

Each teacher, and the student as it is now, reranks the same candidates of a sample of labelled
queries, and on those unseen in training. A teacher that ranks worse than the first stage or the
student is warned of. --leakage counts what of the test split stands in the train split, or nearly.
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
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(AuditConfig, audit, verb="audit", about=__doc__, words=words)


def audit(config: AuditConfig) -> None:
    """Audit the split or the teachers, print what was found, and write the JSON."""
    from retrodistill.base.files import write_atomically
    from retrodistill.data.datasets import load_collection
    from retrodistill.stages import preflight

    preflight.audit(config)
    collection = load_collection(config.data)
    found = (_audit_split if config.leakage else _audit_teachers)(config, collection)
    if config.json is not None:
        text = json.dumps({"config": as_dict(config)} | found, indent=2, ensure_ascii=False)
        write_atomically(config.json, (text + "\n").encode())


def _audit_teachers(config: AuditConfig, collection: "Collection") -> dict[str, Any]:
    from retrodistill.data.store.runs import Run
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.models.teachers import load_teacher
    from retrodistill.stages.evaluation import evaluate_with_unseen
    from retrodistill.stages.reporting.results import print_unseen
    from retrodistill.stages.reporting.tables import print_table
    from retrodistill.stages.scoring.audit import audit_teachers

    first_stage = Run.read(config.candidates)  # type: ignore[arg-type]  # None with --leakage only
    body: dict[str, Any] = {"batch_tokens": config.batch_tokens, "precision": config.precision}
    teachers = {
        spec: load_teacher(spec, collection, max_tokens=config.max_tokens, **body)
        for spec in config.teacher
    }
    student = DenseEncoder(config.student, **body) if config.student else None
    found = audit_teachers(
        collection,
        config.split,
        first_stage,
        teachers,
        student=student,
        queries=config.queries,
        depth=config.depth,
        seed=config.seed,
    )
    report = evaluate_with_unseen(collection, found.qrels, found.runs, metrics=METRICS)
    means = [(name, *(f"{row[m]:.4f}" for m in METRICS)) for name, row in report.systems.items()]
    print_table(("system", *METRICS), means, title="the same lists, reranked", best=METRICS)
    for columns, rows in found.tables():
        print_table(columns, rows)
    content = report.to_dict(per_query=True)
    content["warnings"] += _warnings(found, report)
    print_unseen(content, tests=False, notes=False)
    return content | found.to_dict()


def _audit_split(config: AuditConfig, collection: "Collection") -> dict[str, Any]:
    from retrodistill.stages.evaluation.leakage import find_leakage
    from retrodistill.stages.reporting.tables import print_table

    settings = {name: getattr(config, name) for name in ("threshold", "query_shingle", "shingle")}
    found = find_leakage(collection, config.split, config.test_split, **settings)
    print_table(*found.table())
    print(*found.quotations(), sep="\n")
    return found.to_dict()


def _warnings(found: "Audit", report: "Evaluation") -> list[str]:
    """Return a sentence for each teacher that ranks worse than what it shall improve on."""
    means = {name: row[METRICS[0]] for name, row in report.systems.items()}
    return [
        f"teacher {t.b} ranks worse than the {t.a}: {METRICS[0]} {means[t.b]:.4f} against "
        f"{means[t.a]:.4f} (paired t test over {len(found.qrels)} queries: p {t.p:.2g})."
        for t in report.tests
        if t.metric == METRICS[0] and t.difference > 0
        if t.a in found.baselines and t.b in found.teachers
    ]


if __name__ == "__main__":
    sys.exit(main())
