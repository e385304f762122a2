"""Mine candidates: for each query the documents that a teacher shall score.

    python -m retrodistill.mine --data beir:scifact --split train \\
        --retriever bm25 --retriever dense:MODEL --depth 100 --out runs/train
    python -m retrodistill.mine --data docs:handbook --queries log.txt --out runs/log
    python -m retrodistill.mine --data beir:scifact --split train --queries log.tsv --out runs/both

Several retrievers are fused by reciprocal ranks. Queries of a file need no judgements.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import MineConfig, as_dict


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(MineConfig, mine, verb="mine", about=__doc__, words=words)


def mine(config: MineConfig) -> None:
    """Mine, write the run, and print its folder."""
    from retrodistill.data.datasets import load_collection
    from retrodistill.stages import preflight
    from retrodistill.stages.mining import mine_candidates

    preflight.mine(config)
    collection = load_collection(config.data, queries=config.queries)
    candidates = mine_candidates(
        collection,
        config.split,
        retrievers=config.retriever,
        depth=config.depth,
        rrf_k=config.rrf_k,
        drop_positives=config.drop_positives,
        add_positives=config.add_positives,
        false_negative_ratio=config.false_negative_ratio,
        max_tokens=config.max_tokens,
        precision=config.precision,
        executor=config.executor,
        workers=config.workers,
    )
    candidates.write(
        config.out,
        inputs={"collection": collection.fingerprint},
        config=as_dict(config),
        overwrite=config.overwrite,
    )
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
