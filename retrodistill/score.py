"""Score candidates with a teacher, once, before any training.

    python -m retrodistill.score --data beir:scifact --candidates runs/train \\
        --teacher cross-encoder:MODEL --out scores/ce
    python -m retrodistill.score --data beir:scifact \\
        --ensemble scores/ce --ensemble scores/bm25 --out scores/both

Run it again after a crash: finished shards stay, the rest is scored.
"""

import sys
from collections.abc import Sequence

from retrodistill.command import run
from retrodistill.config import ScoreConfig, as_dict


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ScoreConfig, score, verb="score", about=__doc__, words=words)


def score(config: ScoreConfig) -> None:
    """Score, or average, and print the store's folder."""
    from retrodistill.datasets import load_collection
    from retrodistill.scoring import (
        average_scores,
        load_teacher,
        read_candidates,
        score_candidates,
    )
    from retrodistill.store.runs import Run
    from retrodistill.store.scores import ScoreStore

    collection = load_collection(config.data)
    if config.teacher is not None:
        assert config.candidates is not None
        candidates = read_candidates(config.candidates)
        teacher = load_teacher(
            config.teacher,
            collection,
            max_tokens=config.max_tokens,
            batch_tokens=config.batch_tokens,
            precision=config.precision,
        )
        score_candidates(
            collection,
            candidates,
            teacher,
            config.out,
            shard_pairs=config.shard_pairs,
            config=as_dict(config),
        )
    else:
        members = [Run.read(path) for path in config.ensemble]
        mean = average_scores(members, weights=config.weight or None)
        inputs = {f"member {number}": member.fingerprint for number, member in enumerate(members)}
        store = ScoreStore(
            config.out,
            inputs={"collection": collection.fingerprint, "weights": str(config.weight), **inputs},
            config=as_dict(config),
            details={"scale": "z"},
        )
        for shard in store.missing(mean, shard_pairs=len(mean)):
            store.commit(shard, mean.table["score"].to_numpy())
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
