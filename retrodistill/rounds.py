"""Train in rounds: mine with the present student, score what is new, train, measure, keep or stop.

    python -m retrodistill.rounds --data beir:scifact --recipe fid-kd --teacher reader:FID \\
        --student MODEL --rounds 3 --dev-split dev --out app
    python -m retrodistill.rounds --data beir:nq --recipe prod --teacher bi-encoder=bi-encoder:M \\
        --teacher cross-encoder=cross-encoder:M --stage bi-encoder --stage cross-encoder --out app

Each round retrieves candidates with the student of the round before, and a teacher scores the pairs
that no earlier round has scored. A recipe of several stages trains them in order in each round. The
student that is best on --dev-split is kept in app/student; app/report.html shows every round. Run
it again after a crash, or with other settings: only what they change is made again. The exit status
is 1 where no student is better than the one that it came from, which is then kept.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import RoundsConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 1 it did not pay, 2 a user's mistake)."""
    return run(RoundsConfig, rounds, verb="rounds", about=__doc__, words=words)


def rounds(config: RoundsConfig) -> int:
    """Run the rounds, print their table and what was kept; return 1 if no student paid, else 0."""
    from retrodistill.stages import preflight

    preflight.rounds(config)
    from retrodistill.stages.pipelines.rounds.page import BEST
    from retrodistill.stages.pipelines.rounds.pipeline import run_rounds
    from retrodistill.stages.reporting.results import print_unseen
    from retrodistill.stages.reporting.tables import print_table

    result = run_rounds(config)
    print_table(result.columns, result.rows, title=result.title, best=BEST)
    print_unseen(result.evaluation, tests=False, notes=False)
    for line in result.lines:
        print(line)
    print(f"Report: {config.out / 'report.html'}")
    return int(not result.paid)


if __name__ == "__main__":
    sys.exit(main())
