"""Judges that give scores, by their own path: `fakes.judges:Overlap:x`."""

from typing import Any

import numpy as np

from retrodistill.base.types import Pairs, Unit


class Overlap:
    """The logit of the share of the query's words that a document has, less 0.5, times 8."""

    fingerprint = "overlap"
    scale = "logit"
    unit: Unit = "pair"
    scored = 0

    def __init__(self, argument: str) -> None:
        self.argument = argument

    def score(self, pairs: Pairs) -> np.ndarray:
        type(self).scored += len(pairs)
        texts = [
            (pairs.queries[q].full_text.split(), pairs.docs[d].full_text.split())
            for q, d in zip(pairs.query_rows, pairs.doc_rows, strict=True)
        ]
        shares = [len({*query} & {*doc}) / len({*query}) for query, doc in texts]
        return np.array([8 * (share - 0.5) for share in shares], np.float32)


class Listwise(Overlap):
    """A judge whose numbers depend on the other documents of the list."""

    unit: Unit = "list"

    def score(self, pairs: Pairs) -> Any:
        raise AssertionError("a listwise judge was asked")
