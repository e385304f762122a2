"""Judge the documents that runs found: graded relevance by a language model or another teacher.

    python -m retrodistill.judge --data beir:scifact --split test --run runs/bm25 --run runs/kl \\
        --judge llm:NAME --depth 10 --max-queries 50 --out judgements
    python -m retrodistill.judge --data docs:handbook --queries log.txt --run runs/log \\
        --judge cross-encoder:MODEL --grades 0.3,0.6,0.8 --out judgements
    python -m retrodistill.evaluate --data beir:scifact,qrels=judgements/qrels --split judged \\
        --run runs/bm25 --run runs/kl

For collections that no human has judged. Where --split has human judgements, the agreement with
them is measured: how far the judge can be trusted here. A pair without a usable answer stays
unjudged; all answers are kept, so that the same command asks for the rest only.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import JudgeConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(JudgeConfig, judge, verb="judge", about=__doc__, words=words)


def judge(config: JudgeConfig) -> None:
    """Judge, write the folder, print the agreement with human grades, and the folder."""
    from retrodistill.stages import preflight

    preflight.judge(config)
    from retrodistill.stages.pipelines import verbs
    from retrodistill.stages.reporting.tables import print_table

    judgements = verbs.judge(config)
    if judgements.agreement is not None:
        for title, columns, rows in judgements.agreement.tables():
            print_table(columns, rows, title=title)
        print(*judgements.agreement.notes(), sep="\n")
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
