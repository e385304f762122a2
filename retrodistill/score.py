"""Score candidates with a teacher, once, before any training.

    python -m retrodistill.score --data beir:scifact --candidates runs/train \\
        --teacher cross-encoder:MODEL --out scores/ce
    python -m retrodistill.score --data beir:scifact \\
        --ensemble scores/ce --ensemble scores/bm25 --out scores/both
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
from typing import TYPE_CHECKING, Any

from retrodistill.command import run
from retrodistill.config import ScoreConfig, as_dict

if TYPE_CHECKING:
    from retrodistill.datasets import Collection


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ScoreConfig, score, verb="score", about=__doc__, words=words)


def score(config: ScoreConfig) -> None:
    """Do the one job that the settings name, and print where the result lies or what was found."""
    from retrodistill import scoring
    from retrodistill.datasets import load_collection
    from retrodistill.store.runs import Run

    if config.status:
        print("\n".join(scoring.status(config.out).lines()))
        return
    collection = load_collection(config.data) if config.data is not None else None
    if config.export is not None and config.format is not None:
        scoring.export_scores(
            Run.read(config.out), config.export, format=config.format, collection=collection,
            split=config.split,
        )  # fmt: skip
        print(config.export)
        return
    assert collection is not None
    if config.teacher is not None:
        ask(config, config.teacher, collection)
    elif config.import_ is not None:
        scoring.import_scores(
            collection, config.import_, config.out, format=config.format, scale=config.scale,
            differing=config.differing, config=as_dict(config),
        )  # fmt: skip
    else:
        scoring.store_ensemble(
            collection, config.ensemble, config.out, how=config.combine,
            weights=config.weight or None, query_weight=config.query_weight, split=config.split,
            config=as_dict(config),
        )  # fmt: skip
    print(config.out)


def ask(config: ScoreConfig, spec: str, collection: "Collection") -> None:
    """Let the teacher fill the store, or verify what is in it."""
    from retrodistill import scoring

    teacher = scoring.load_teacher(
        spec, collection, options=config.option, max_tokens=config.max_tokens,
        batch_tokens=config.batch_tokens, precision=config.precision,
    )  # fmt: skip
    if config.candidates is None:
        assert config.verify is not None
        found = scoring.verify_scores(collection, teacher, config.out, sample=config.verify)
        print(found.line())
        return
    candidates = scoring.read_candidates(config.candidates)
    settings: dict[str, Any] = {"shard_pairs": config.shard_pairs, "config": as_dict(config)}
    if config.preferences:
        scoring.compare_candidates(
            collection, candidates, teacher, config.out, opponents=config.opponents, **settings
        )
    else:
        scoring.score_candidates(collection, candidates, teacher, config.out, **settings)


if __name__ == "__main__":
    sys.exit(main())
