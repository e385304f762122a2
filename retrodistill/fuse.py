"""Fuse several systems: one list, or one score, of several, with weights given or tuned.

    python -m retrodistill.fuse --run runs/bm25 --run runs/dense --weight 0.4 --weight 0.6 \\
        --out runs/hybrid
    python -m retrodistill.fuse --run runs/bm25 --run runs/dense \\
        --tune runs/dev-bm25 --tune runs/dev-dense --data beir:medquad --split dev \\
        --out runs/hybrid
    python -m retrodistill.fuse --method rerank --run runs/dense --run scores/teacher \\
        --out runs/reranked
    python -m retrodistill.fuse --run scores/ce --run scores/bm25 --norm z \\
        --data beir:scifact --as-store --out scores/both

A run holds every document of any list; a document that one list lacks counts there as its lowest
one. With --as-store the result is a score store to train on, of the pairs that all runs score.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import FuseConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a user's mistake)."""
    return run(FuseConfig, fuse, verb="fuse", about=__doc__, words=words)


def fuse(config: FuseConfig) -> None:
    """Tune if requested, fuse, print what single runs and fusions reach, and the folder."""
    from retrodistill.stages import preflight
    from retrodistill.stages.pipelines import fusing
    from retrodistill.stages.reporting.tables import print_table

    preflight.fuse(config)
    tuning = fusing.fuse(config)
    if tuning is not None:
        print_table(
            ("on the queries to tune on", tuning.metric),
            tuning.rows([str(path) for path in config.tune]),
            title=f"{tuning.queries:,} judged queries",
        )
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
