"""Mine candidates: for each query, documents for a teacher to score.

    python -m retrodistill.mine --data beir:scifact --split train \\
        --retriever bm25 --retriever dense:MODEL --depth 100 --out runs/train
    python -m retrodistill.mine --data docs:handbook --queries log.txt --out runs/log
    python -m retrodistill.mine --data beir:scifact --split train --queries log.tsv --out runs/both

Several retrievers are fused by reciprocal ranks. Queries of a file need no judgements.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import MineConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(MineConfig, mine, verb="mine", about=__doc__, words=words)


def mine(config: MineConfig) -> None:
    """Mine, write the run, and print its folder."""
    from retrodistill.stages import preflight

    preflight.mine(config)
    from retrodistill.stages.pipelines import verbs

    verbs.mine(config)
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
