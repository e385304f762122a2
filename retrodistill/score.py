"""Score candidates with a teacher, once, before any training.

    python -m retrodistill.score --data beir:scifact --candidates runs/train \\
        --teacher cross-encoder:MODEL --out scores/ce
    python -m retrodistill.score --data beir:scifact --import published.tsv --format margin-mse \\
        --out scores/published
    python -m retrodistill.score --data beir:scifact --out scores/ce \\
        --export scores.jsonl --format pylate
    python -m retrodistill.score --status --out scores/ce

Run it again after a crash: finished shards stay, the rest is scored. Run it several times at
once: the processes share the shards.
"""

import sys
from collections.abc import Sequence
from functools import partial

from retrodistill.base.command import run
from retrodistill.base.config import ScoreConfig, as_dict


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ScoreConfig, score, verb="score", about=__doc__, words=words)


def score(config: ScoreConfig) -> None:
    """Do the one job that the settings name, and print where the result lies or what was found."""
    from retrodistill.base.executor import execute
    from retrodistill.data.datasets import load_collection
    from retrodistill.data.store.runs import Run
    from retrodistill.data.store.shards import shard_paths
    from retrodistill.stages import preflight, scoring

    preflight.score(config)
    if config.status:
        print("\n".join(scoring.status(config.out).lines()))
        return
    if config.verify is not None:
        print(scoring.verify(config).line())
        return
    if config.teacher is not None:
        execute(
            partial(scoring.fill, config),
            executor=config.executor,
            workers=config.workers,
            done=lambda: len(shard_paths(config.out)),
        )
        print(config.out)
        return
    collection = (
        load_collection(config.data, queries=config.queries) if config.data is not None else None
    )
    if config.export is not None and config.format is not None:
        scoring.export_scores(
            Run.read(config.out),
            config.export,
            format=config.format,
            collection=collection,
            split=config.split,
        )
        print(config.export)
        return
    assert collection is not None
    assert config.import_ is not None
    scoring.import_scores(
        collection,
        config.import_,
        config.out,
        format=config.format,
        scale=config.scale,
        differing=config.differing,
        config=as_dict(config),
    )
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
