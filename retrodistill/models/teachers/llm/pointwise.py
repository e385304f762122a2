"""Pointwise language-model teachers: whether a passage answers the query."""

import json
import re
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.types import Pairs, Unit
from retrodistill.models.teachers.llm.answers import Answer, Malformed, log_odds
from retrodistill.models.teachers.llm.base import EndpointTeacher

TASK = "Judge whether the passage answers the query."

QUESTION = """{task}

Query: {query}

Passage: {passage}

{form}"""

MIDDLE_GRADE = 5.0

YES_NO = "Does the passage answer the query? Say one word only: yes or no."

GRADE = (
    "How well does the passage answer the query? Grade it from 0 (not at all) to 10 (fully), and "
    'write nothing but JSON of this form: {"grade": 0}'
)


@dataclass(eq=False, repr=False, kw_only=True)
class LLMTeacher(EndpointTeacher):
    """The log-odds of yes against no, from the log-probabilities of the answer's tokens.

    With `grades`, for endpoints that give no log-probabilities: the grade that the model writes,
    from 0 to 10. It is neither a logit nor a probability, and many candidates share one, so its
    scale is `unknown`.
    """

    unit: Unit = field(default="pair", init=False)

    grades: bool = False
    """Ask for grades in words instead of reading log-probabilities."""

    top_logprobs: int = 20
    """Number of likely tokens to request at each position, up to the endpoint's limit."""

    def __post_init__(self) -> None:
        self.check_least(1, "top_logprobs")
        self.scale = "unknown" if self.grades else "logit"
        super().__post_init__()

    def template(self) -> str:
        """Return the question without its texts."""
        return self._question(query="{query}", passage="{passage}")

    def top(self) -> int:
        """Return the number of likely tokens to request."""
        return 0 if self.grades else self.top_logprobs

    def shaping(self) -> tuple[str, ...]:
        """Return the names of the settings that influence a score."""
        return super().shaping() if self.grades else (*super().shaping(), "top_logprobs")

    def _question(self, query: str, passage: str) -> str:
        form = GRADE if self.grades else YES_NO
        task = self.instruction or TASK
        return QUESTION.format(task=task, query=query, passage=passage, form=form)

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the log-odds in nats, or the grade, of each pair.

        Raises:
            ConfigError: the endpoint refuses, gives no log-probabilities, or costs too much.
            DataError: no usable answer comes, however often the model is asked.

        """
        questions = []
        for query_row, doc_row in zip(pairs.query_rows, pairs.doc_rows, strict=True):
            query, doc = pairs.queries[query_row], pairs.docs[doc_row]
            prompt = self._question(self.cut(query), self.cut(doc))
            questions.append((prompt, f"query {query.id!r} and document {doc.id!r}"))
        read = read_grade if self.grades else partial(log_odds, first="yes", second="no")
        undecided = MIDDLE_GRADE if self.grades else 0.0
        return np.array(self.answers(questions, read, undecided), np.float32)


def read_grade(answer: Answer) -> float:
    """Return the grade of the last JSON object in an answer.

    Raises:
        Malformed: there is none, or it is not from 0 to 10.

    """
    for written in reversed(re.findall(r"\{[^{}]*\}", answer.conclusion)):
        try:
            grade = json.loads(written)["grade"]
            value = float("nan" if isinstance(grade, bool) else grade)
        except (ValueError, LookupError, TypeError):
            continue
        if 0.0 <= value <= 10.0:
            return value
    raise Malformed(answer.text, 'a grade from 0 to 10 as {"grade": 0}')
