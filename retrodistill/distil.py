"""From documents to a proven student: one command.

    python -m retrodistill.distil --data docs:handbook --out app
    python -m retrodistill.distil --data beir:scifact --queries log.txt --out app \\
        --teacher bm25 --teacher bi-encoder:MODEL
    python -m retrodistill.distil --data builtin:pydocs --keep-layers 0,2,5 --out app
    python -m retrodistill.distil --config app/plan.yaml

Writes queries from titles, mines candidates, scores them with the teachers, trains a student,
measures it beside BM25, the untouched model, their fusion and the teacher, and says which to use:
app/student, app/index, app/report.html, app/report.json. Run it again after a crash, or with other
settings (also those in app/plan.yaml): only what they change is made again. The exit status is 1
where no student is better than the model that it came from, which is then kept.
"""

import shlex
import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import DistilConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 1 it did not pay, 2 a user's mistake)."""
    return run(DistilConfig, distil, verb="distil", about=__doc__, words=words)


def distil(config: DistilConfig) -> int:
    """Run the pipeline, print the table and what to use; return 1 if no student paid, else 0."""
    from retrodistill.stages import preflight

    preflight.distil(config)
    from retrodistill.stages.pipelines.distil import distil as run_pipeline
    from retrodistill.stages.pipelines.distil.page import COLUMNS
    from retrodistill.stages.reporting.results import print_unseen
    from retrodistill.stages.reporting.tables import print_table

    distilled = run_pipeline(config)
    if distilled is None:
        print(config.out / "plan.yaml")
        return 0
    queries = distilled.evaluation["settings"]["queries"]
    title = f"{queries:,} queries"
    print_table(COLUMNS, distilled.rows, title=title, best=("nDCG@10", "Recall@100"))
    print_unseen(distilled.evaluation, tests=False, notes=False)
    for line in distilled.lines:
        print(line)
    print(f"Report: {config.out / 'report.html'}")
    index = shlex.quote(str(config.out / "index"))
    print(f'Search: python -m retrodistill.search --index {index} "your question"')
    print(f"Serve:  python -m retrodistill.serve --index {index}")
    return int(not distilled.choice.paid)


if __name__ == "__main__":
    sys.exit(main())
