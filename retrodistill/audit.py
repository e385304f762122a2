"""Audit teachers before spending on them: do they rank better than what they shall teach?

    python -m retrodistill.audit --data beir:scifact --split train --candidates runs/train \\
        --teacher cross-encoder:MODEL --teacher bm25 --student MODEL --json audit.json

Each teacher, and the student as it is now, reranks the same candidates of a sample of labelled
queries. A teacher that ranks worse than the first stage or the student is warned of.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodistill.command import run
from retrodistill.config import AuditConfig, as_dict

if TYPE_CHECKING:
    from retrodistill.evaluation import Evaluation
    from retrodistill.scoring.audit import Audit

METRICS = ("ndcg@10", "mrr@10")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(AuditConfig, audit, verb="audit", about=__doc__, words=words)


def audit(config: AuditConfig) -> None:
    """Score the sample, measure, print the tables and warnings, and write the JSON."""
    from retrodistill.datasets import load_collection
    from retrodistill.evaluation import evaluate_runs
    from retrodistill.manifest import write_atomically
    from retrodistill.progress import say
    from retrodistill.scoring.audit import audit_teachers
    from retrodistill.store.runs import Run
    from retrodistill.students.dense import DenseEncoder
    from retrodistill.teachers import load_teacher

    collection = load_collection(config.data)
    first_stage = Run.read(config.candidates)
    batch_tokens, precision = config.batch_tokens, config.precision
    teachers = {
        spec: load_teacher(spec, collection, max_tokens=config.max_tokens,
                           batch_tokens=batch_tokens, precision=precision)
        for spec in config.teacher
    }  # fmt: skip
    student = None
    if config.student is not None:
        student = DenseEncoder(config.student, batch_tokens=batch_tokens, precision=precision)
    found = audit_teachers(
        collection, config.split, first_stage, teachers, student=student,
        queries=config.queries, depth=config.depth, seed=config.seed,
    )  # fmt: skip
    report = evaluate_runs(found.qrels, found.runs, metrics=METRICS)
    _print_tables(found, report)
    warnings = _warnings(found, report)
    for warning in warnings:
        say(f"warning: {warning}")
    if config.json is not None:
        content = {"config": as_dict(config), "warnings": warnings}
        content |= report.to_dict(per_query=True) | found.to_dict()
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_atomically(config.json, (text + "\n").encode())


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


def _print_tables(found: "Audit", report: "Evaluation") -> None:
    from retrodistill.reporting.tables import print_table

    means = [(name, *(f"{row[m]:.4f}" for m in METRICS)) for name, row in report.systems.items()]
    print_table(("system", *METRICS), means, title="the same lists, reranked", best=METRICS)
    shapes, lists = [], []
    for name, s in found.teachers.items():
        shapes.append((name, *(f"{value:.4g}" for value in s.quartiles), s.bars))
        c = s.calibration
        flat = (f"{c.temperature:.4g}", c.perplexity) if c else (None, None)
        lists.append((name, s.scale, f"{s.ties:.1%}", str(s.constant), *flat, s.seconds))
    print_table(("teacher", "lowest", "25 %", "median", "75 %", "highest", ""), shapes)
    own = ("scale", "ties", "constant lists", "temperature", "perplexity", "seconds")
    print_table(("teacher", *own), lists)
    if found.agreement:
        pairs = [(r.a, r.b, r.tau, f"{r.same_first:.1%}") for r in found.agreement]
        print_table(("teacher", "and teacher", "Kendall's tau-b", "same first"), pairs)


if __name__ == "__main__":
    sys.exit(main())
