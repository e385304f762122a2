"""Pairwise language-model teachers: which of two passages answers the query better."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.types import Comparisons, Pairs, Unit
from retrodistill.models.teachers.llm.answers import log_odds
from retrodistill.models.teachers.llm.base import EndpointTeacher, shuffled

TASK = "Judge which of two passages answers the query better."

QUESTION = """{task}

Query: {query}

Passage A: {first}

Passage B: {second}

Which passage answers the query better? Say one letter only: A or B."""


@dataclass(eq=False, repr=False, kw_only=True)
class LLMPairwiseTeacher(EndpointTeacher):
    """Preferences between two passages; as scores, each candidate's mean against its opponents.

    The candidates of a query form a circle whose order depends only on the texts, and each meets
    those that follow: neighbours of the first stage's list would be rivals of the same strength,
    and their means would say little. A meeting counts for both.
    """

    scale = "log-probability"
    unit: Unit = field(default="list", init=False)

    opponents: int = 4
    """How many that follow in the circle each candidate meets (0: all). A meeting costs two
    requests, one in each order."""

    top_logprobs: int = 20
    """Number of likely tokens to request at each position, up to the endpoint's limit."""

    def __post_init__(self) -> None:
        self.check_least(0, "opponents")
        self.check_least(1, "top_logprobs")
        super().__post_init__()

    def template(self) -> str:
        """Return the question without its texts."""
        return self._question("{query}", "{first}", "{second}")

    def top(self) -> int:
        """Return the number of likely tokens to request."""
        return self.top_logprobs

    def shaping(self) -> tuple[str, ...]:
        """Return the names of the settings that influence a score."""
        return (*super().shaping(), "opponents", "top_logprobs")

    def _question(self, query: str, first: str, second: str) -> str:
        task = self.instruction or TASK
        return QUESTION.format(task=task, query=query, first=first, second=second)

    def compare(self, comparisons: Comparisons) -> NDArray[np.float32]:
        """Return log p(first is better than second) of each comparison, in nats.

        p is the mean over both orders of the question.

        Raises:
            ConfigError: the endpoint refuses, gives no log-probabilities, or costs too much.
            DataError: no usable answer comes, however often the model is asked.

        """
        return self._log_chances(comparisons)[0].astype(np.float32)

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the mean log-probability of winning, in nats; of a single candidate log 1 = 0.

        Raises:
            ConfigError: as `compare`.
            DataError: as `compare`.

        """
        met: list[tuple[int, int]] = []
        for query, positions in pairs.by_query():
            docs = [pairs.docs[row] for row in pairs.doc_rows[positions]]
            circle = positions[shuffled(query, docs)]
            met.extend((circle[i], circle[j]) for i, j in meetings(len(circle), self.opponents))
        sides = np.array(met, np.int64).reshape(-1, 2).T
        comparisons = Comparisons(
            pairs.queries, pairs.docs, pairs.query_rows[sides[0]], *pairs.doc_rows[sides]
        )
        totals, counts = np.zeros(len(pairs)), np.zeros(len(pairs))
        for side, values in zip(sides, self._log_chances(comparisons), strict=True):
            np.add.at(totals, side, values)
            np.add.at(counts, side, 1.0)
        return (totals / np.maximum(counts, 1.0)).astype(np.float32)

    def _log_chances(
        self, comparisons: Comparisons
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the log-probabilities that the first and that the second wins."""
        questions = []
        for rows in zip(
            comparisons.query_rows, comparisons.first_rows, comparisons.second_rows, strict=True
        ):
            query = comparisons.queries[rows[0]]
            docs = [comparisons.docs[row] for row in rows[1:]]
            about = f"query {query.id!r} and documents {docs[0].id!r} and {docs[1].id!r}"
            texts = [self.cut(doc) for doc in docs]
            query_text = self.cut(query)
            questions += [
                (self._question(query_text, *passages), about) for passages in (texts, texts[::-1])
            ]
        read = partial(log_odds, first="A", second="B", cased=True)  # "a" is an article
        odds = np.array(self.answers(questions, read, 0.0), np.float64).reshape(-1, 2)
        odds[:, 1] *= -1.0  # where the first document was B
        return _log_mean_sigmoid(odds), _log_mean_sigmoid(-odds)


def meetings(candidates: int, opponents: int) -> Iterator[tuple[int, int]]:
    """Yield the positions on a circle that meet: each with the next ones, no pair twice."""
    reach = min(opponents or candidates, candidates - 1)
    met = set()
    for position in range(candidates):
        for step in range(1, reach + 1):
            opponent = (position + step) % candidates
            if (opponent, position) not in met:
                met.add((position, opponent))
                yield position, opponent


def _log_mean_sigmoid(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log of the mean over each row of the odds' probabilities."""
    logs = np.logaddexp.reduce(-np.logaddexp(0.0, -odds), axis=1)
    mean: NDArray[np.float64] = logs - np.log(odds.shape[1])
    return mean
