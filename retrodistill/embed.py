"""Embed a collection's documents with a student, into an index.

    python -m retrodistill.embed --data beir:scifact --model students/kl --out indexes/kl
    python -m retrodistill.embed --data beir:scifact --model students/kl --out indexes/fast \\
        --index hnsw --recall 0.95 --attributes year,lang

The index folder holds a copy of the model, so it can be searched alone.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodistill.base.command import run
from retrodistill.base.config import EmbedConfig

if TYPE_CHECKING:
    pass


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(EmbedConfig, embed, verb="embed", about=__doc__, words=words)


def embed(config: EmbedConfig) -> None:
    """Embed, and print the index folder."""
    from retrodistill.stages import preflight

    preflight.embed(config)
    from retrodistill.stages.pipelines import verbs

    verbs.embed(config)
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
