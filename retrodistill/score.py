"""Score candidates with a teacher, once, before any training.

    python -m retrodistill.score --data beir:scifact --candidates runs/train \\
        --teacher cross-encoder:MODEL --out scores/ce
    python -m retrodistill.score --status --out scores/ce

Run it again after a crash: finished shards stay, the rest is scored. Run it several times at
once: the processes share the shards.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import ScoreConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ScoreConfig, score, verb="score", about=__doc__, words=words)


def score(config: ScoreConfig) -> None:
    """Score, verify or show the status; print the store, the difference or the status."""
    from retrodistill.stages import preflight

    preflight.score(config)
    from retrodistill.stages import scoring
    from retrodistill.stages.pipelines import verbs

    if config.status:
        print("\n".join(scoring.status(config.out).lines()))
        return
    if config.verify is not None:
        print(scoring.verify(config).line())
        return
    verbs.score(config)
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
