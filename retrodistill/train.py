"""Train a student from teacher scores, from labels, or from both.

    python -m retrodistill.train --data beir:scifact --scores scores/ce \\
        --student MODEL --objective "listwise-kl + 0.1*contrastive" --out students/kl

The result is a plain sentence-transformers folder. With --save-steps, a killed training goes
on where it was with --resume.
"""

import dataclasses
import sys
from collections.abc import Sequence

from retrodistill.command import run
from retrodistill.config import TrainConfig, as_dict


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(TrainConfig, train, verb="train", about=__doc__, words=words)


def train(config: TrainConfig) -> None:
    """Train, and print the student's folder."""
    from retrodistill.datasets import load_collection
    from retrodistill.store.runs import Run
    from retrodistill.students.dense import DenseEncoder
    from retrodistill.students.make import parse_layers
    from retrodistill.training import TrainSettings, train_student

    shared = {item.name for item in dataclasses.fields(TrainSettings)} - {"keep_layers"}
    settings = TrainSettings(
        keep_layers=parse_layers(config.keep_layers) if config.keep_layers else (),
        **{name: getattr(config, name) for name in shared},
    )
    out = train_student(
        load_collection(config.data),
        config.student,
        config.out,
        scores=Run.read(config.scores) if config.scores else None,
        vectors=DenseEncoder(config.vectors, precision=config.precision)
        if config.vectors
        else None,
        split=config.split,
        objective=config.objective,
        settings=settings,
        resume=config.resume,
        overwrite=config.overwrite,
        config=as_dict(config),
    )
    print(out)


if __name__ == "__main__":
    sys.exit(main())
