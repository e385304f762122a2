"""Run the main job once, in minutes, on what every installation has.

    python -m retrodistill.quickstart

`distil` over the documentation of the installed Python libraries: from all-MiniLM-L6-v2 (six
layers) to a student of three layers that learns from the six layers' vectors, then from scores and
labels, and is measured beside BM25 and the six layers, served from an index, and reported.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import DistilConfig, QuickstartConfig
from retrodistill.distil import distil
from retrodistill.models.inference import model_path

PACKAGED = "packaged:all-MiniLM-L6-v2"
KEPT = (0, 2, 5)
TOKENS = 96
DEPTH = 30
STEPS = 120
EXAMPLE = "read a file line by line"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 1 it did not pay, 2 a user's mistake)."""
    return run(QuickstartConfig, quickstart, verb="quickstart", about=__doc__, words=words)


def quickstart(config: QuickstartConfig) -> int:
    """Do the job, print the table and a search; return 1 if the student did not pay, else 0."""
    status = distil(
        DistilConfig(
            data=config.data,
            queries=config.queries,
            student=config.model or PACKAGED,
            keep_layers=KEPT,
            max_tokens=TOKENS,
            depth=DEPTH,
            steps=STEPS,
            out=config.out,
        )
    )
    from retrodistill.stages.searching import Searcher

    for hit in Searcher.open(config.out / "index").search(EXAMPLE, k=3):
        print(f"{hit.score:.3f}  {hit.title}")
    return status


def packaged_model() -> str:
    """Return the folder of all-MiniLM-L6-v2 from its PyPI package."""
    return model_path(PACKAGED)


if __name__ == "__main__":
    sys.exit(main())
