"""Embed a collection's documents with a student, into an index.

    python -m retrodistill.embed --data beir:scifact --model students/kl --out indexes/kl
    python -m retrodistill.embed --data beir:scifact --model students/kl --out indexes/fast \\
        --index hnsw --recall 0.95 --attributes year,lang

The index folder holds a copy of the model, so it can be searched alone.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrodistill.base.command import run
from retrodistill.base.config import EmbedConfig, as_dict

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodistill.data.datasets import Collection


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(EmbedConfig, embed, verb="embed", about=__doc__, words=words)


def embed(config: EmbedConfig) -> None:
    """Embed, and print the index folder."""
    from retrodistill.base.config.search import parse_bytes
    from retrodistill.data.datasets import load_collection
    from retrodistill.data.filters import read_conditions
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.stages import preflight
    from retrodistill.stages.indexing import embed_collection

    preflight.embed(config)
    collection = load_collection(config.data, queries=config.queries)
    attributes = attributes_of(collection, config.attributes) if config.attributes else None
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
        dimensions=config.dimensions,
        attributes=attributes,
        workload=read_conditions(config.workload) if config.workload is not None else (),
        recall=config.recall,
        memory=parse_bytes(config.memory) if config.memory is not None else None,
        executor=config.executor,
        workers=config.workers,
        config=as_dict(config),
        overwrite=config.overwrite,
    )
    print(out)


def attributes_of(collection: "Collection", wanted: str) -> "pa.Table":
    """Return a row of attributes for each document: fields of theirs, or those of a file."""
    from retrodistill.data.datasets.attributes import read_attributes

    docs = collection.docs
    if Path(wanted).is_file():
        return read_attributes(Path(wanted), docs.ids())
    return docs.attributes([name.strip() for name in wanted.split(",")])


if __name__ == "__main__":
    sys.exit(main())
