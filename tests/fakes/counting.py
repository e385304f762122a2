"""A teacher that writes down every pair that it is asked to score."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class CountingTeacher:
    """Scores by words that query and document share; each pair is a line of a file.

    It sleeps a little, so that a kill can fall into its work.
    """

    scale = "logit"
    unit = "pair"
    fingerprint = "counting"

    def __init__(self, path: str, **_: Any) -> None:
        self._path = Path(path)

    def score(self, pairs: Any) -> NDArray[np.float32]:
        """Return the number of shared words of each pair, after writing down the pair."""
        scores = np.empty(len(pairs), np.float32)
        with self._path.open("a", encoding="utf-8") as lines:
            for place, (query, doc) in enumerate(
                zip(pairs.query_rows, pairs.doc_rows, strict=True)
            ):
                left, right = pairs.queries[query], pairs.docs[doc]
                lines.write(f"{left.id} {right.id}\n")
                shared = {*left.text.split()} & {*right.full_text.split()}
                scores[place] = len(shared) + len(right.full_text) / 1000
        time.sleep(0.05)
        return scores


def asked(path: Path) -> list[str]:
    """Return the pairs that were asked for, in order, repeated ones too."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
