"""Embed a collection's documents with a student, into an index.

    python -m retrodistill.embed --data beir:scifact --model students/kl --out indexes/kl

The index folder holds a copy of the model, so it can be searched alone.
"""

import sys
from collections.abc import Sequence

from retrodistill.command import run
from retrodistill.config import EmbedConfig, as_dict


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(EmbedConfig, embed, verb="embed", about=__doc__, words=words)


def embed(config: EmbedConfig) -> None:
    """Embed, and print the index folder."""
    from retrodistill.datasets import load_collection
    from retrodistill.manifest import refuse_existing
    from retrodistill.searching import embed_collection
    from retrodistill.students.dense import DenseEncoder

    refuse_existing(config.out, overwrite=config.overwrite)
    collection = load_collection(config.data)
    encoder = DenseEncoder(
        config.model,
        max_tokens=config.max_tokens,
        batch_tokens=config.batch_tokens,
        precision=config.precision,
    )
    out = embed_collection(
        collection,
        encoder,
        out=config.out,
        index=config.index,
        config=as_dict(config),
        overwrite=config.overwrite,
    )
    print(out)


if __name__ == "__main__":
    sys.exit(main())
