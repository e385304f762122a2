"""Find test queries and documents that also occur in the training split, or nearly.

    python -m retrodistill.leakage --data beir:scifact
    python -m retrodistill.leakage --data beir:scifact --split train --test-split dev \\
        --threshold 0.7 --json leakage.json

Prints how many test queries and relevant documents have an equal or a nearly equal text in the
training split, how many queries copy their own relevant document, and the most similar pairs.
"""

import json
import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import LeakageConfig, as_dict


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a user's mistake)."""
    return run(LeakageConfig, leakage, verb="leakage", about=__doc__, words=words)


def leakage(config: LeakageConfig) -> None:
    """Compare the two splits, print the counts and examples, and write the JSON."""
    from retrodistill.base.files import write_atomically
    from retrodistill.data.datasets import load_collection
    from retrodistill.stages import preflight
    from retrodistill.stages.evaluation.leakage import find_leakage
    from retrodistill.stages.reporting.tables import print_table

    preflight.leakage(config)
    overlap = find_leakage(
        load_collection(config.data),
        config.split,
        config.test_split,
        threshold=config.threshold,
        query_shingle=config.query_shingle,
        shingle=config.shingle,
    )
    print_table(*overlap.table())
    print(*overlap.quotations(), sep="\n")
    if config.json is not None:
        content = {"config": as_dict(config)} | overlap.to_dict()
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(config.json, (text + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
