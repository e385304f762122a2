"""Graded judgements by a language model: a rubric, the question, and how answers are read."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from threading import Lock

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Pairs
from retrodistill.models.teachers.llm.answers import Answer, Malformed
from retrodistill.models.teachers.llm.base import EndpointTeacher
from retrodistill.models.teachers.llm.client import NoAnswer, Unanswered, Unusable

TASK = "Judge how relevant the passage is to the query, as a careful reader with this need would."

QUESTION = """{task} Give one of these grades:

{rubric}

Query: {query}

Passage: {passage}

Judge by the passage alone. Write nothing but JSON of this form, your grade as N: {{"grade": N}}"""

GRADE_LINE = re.compile(r"\s*(\d+)\s*[:=.)-]\s*\S")
"""A rubric's line that says what a grade means."""

BARE = r'["\'(\[]*(\d+)["\')\].]*'
LABELLED = re.compile(
    rf"(?:[^:=]*\b(?:grade|score|rating|relevance|scale|answer|judgement|judgment)\b[^:=]*[:=]\s*)?"
    rf"{BARE}",
    re.IGNORECASE,
)
"""A last line that is a number, or a word such as `score` and a number behind a colon."""

FAILURES = {Unanswered: "refused", Unusable: "unusable answer", NoAnswer: "no answer"}
"""Error of one question -> why its pair has no grade."""


@dataclass(frozen=True, slots=True)
class Rubric:
    """What each grade means, in words."""

    text: str
    highest: int
    """The highest grade; the lowest is 0."""

    @classmethod
    def read(cls, path: Path | None = None) -> "Rubric":
        """Return the rubric of a file, or the one that comes with the package.

        Raises:
            ConfigError: the file has no grades, or they are not 0, 1, 2, ... in either order.

        """
        if path is None:
            return cls.parse(files(__package__).joinpath("rubric.txt").read_text("utf-8"))
        try:
            return cls.parse(path.read_text(encoding="utf-8"), source=f"--rubric {path}")
        except UnicodeDecodeError as error:
            raise ConfigError(f"--rubric {path}: it is not UTF-8 ({error}).") from None

    @classmethod
    def parse(cls, text: str, *, source: str = "rubric") -> "Rubric":
        """Return the rubric of a text."""
        lines = [match for match in map(GRADE_LINE.match, text.splitlines()) if match]
        grades = [int(match[1]) for match in lines]
        if len(grades) < 2 or sorted(grades) != list(range(len(grades))):
            raise ConfigError(
                f"{source}: it must say what the grades 0, 1, ... mean, each on a line of its own "
                f"as `2: answers in part`, but it has the grades {grades or 'none'}."
            )
        return cls(text.strip(), len(grades) - 1)


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """The answer about one pair: a grade, or why there is none."""

    grade: int | None
    answer: str = ""
    """What the model wrote, without its thoughts."""

    failure: str = ""
    """`refused`, `unusable answer` or `no answer`; empty where there is a grade."""


@dataclass(eq=False, repr=False)
class LLMGrader(EndpointTeacher):
    """Grades by a rubric, one pair a question.

    The model sees the rubric, the query and the passage: no other passage, no score, no rank.
    Answers are cached under the whole question, so that another rubric asks again.

    Source: Upadhyay et al. 2024, arXiv:2406.06519 (UMBRELA), for the meaning of the default grades
    and for single pairs; the wording and the form of the answer are our own.
    """

    rubric: Rubric

    def __post_init__(self) -> None:
        if self.undecided:
            raise ConfigError(
                "option undecided=true would make a grade of a missing answer. Leave it out: such "
                "pairs stay unjudged, and --max-failed says how many may."
            )
        super().__post_init__()

    def template(self) -> str:
        """Return the question without its texts."""
        return self._question(query="{query}", passage="{passage}")

    @property
    def rubric_hash(self) -> str:
        """Return the hash of the question, of which the rubric is a part."""
        return digest(self.template())[:16]

    def _question(self, query: str, passage: str) -> str:
        task = self.instruction or TASK
        return QUESTION.format(task=task, rubric=self.rubric.text, query=query, passage=passage)

    def grade(self, pairs: Pairs, *, most_failures: int) -> list[GradedAnswer]:
        """Return the answer about each pair, of which `most_failures` may have none.

        Raises:
            ConfigError: the endpoint refuses all questions, or they cost too much.
            DataError: more pairs than `most_failures` have no usable answer. Answers are kept.

        """
        prompts, subjects = [], []
        for query_row, doc_row in zip(pairs.query_rows, pairs.doc_rows, strict=True):
            query, doc = pairs.queries[query_row], pairs.docs[doc_row]
            prompts.append(self._question(self.cut(query), self.cut(doc)))
            subjects.append(f"query {query.id!r} and document {doc.id!r}")
        failures = _Failures(Counter(prompts), most_failures, model=self.model)

        def asked(prompt: str, about: str) -> GradedAnswer:
            try:
                return self.client.ask(prompt, self._read, about=about)
            except (Unanswered, Unusable, NoAnswer) as error:
                return failures.add(prompt, error)

        return self.each(list(zip(prompts, subjects, strict=True)), asked)

    def _read(self, answer: Answer) -> GradedAnswer:
        return GradedAnswer(read_rubric_grade(answer, self.rubric.highest), answer.conclusion)


class _Failures:
    """The pairs without an answer so far, and the most that there may be."""

    def __init__(self, pairs: Counter[str], most: int, *, model: str) -> None:
        self._pairs = pairs
        self._most = most
        self._model = model
        self._lock = Lock()
        self._reasons: Counter[str] = Counter()
        self._example = ""

    def add(self, prompt: str, error: "Unanswered | Unusable | NoAnswer") -> GradedAnswer:
        """Count a question's pairs as failed."""
        reason = FAILURES[type(error)]
        with self._lock:
            self._reasons[reason] += self._pairs[prompt]
            self._example = self._example or error.reason
            count = self._reasons.total()
            if count > self._most:
                reasons = ", ".join(f"{number:,} {why}" for why, number in self._reasons.items())
                raise DataError(
                    f"{self._model}: {count:,} of {self._pairs.total():,} pairs have no grade so "
                    f"far ({reasons}), and at most {self._most:,} may. The first: {self._example} "
                    "Nothing is written. The same command resumes and asks for the rest only; "
                    "--max-failed raises the limit."
                )
        return GradedAnswer(None, failure=reason)


def read_rubric_grade(answer: Answer, highest: int) -> int:
    """Return the grade in an answer: of its last JSON object, or of its last line.

    A line counts only if it is a number, or ends with one behind a colon and a word such as
    `score`: of "on a scale of 0 to 3: 1" the grade is 1.

    Raises:
        Malformed: there is none, or it is not a whole number from 0 to `highest`.

    """
    grade = _written_grade(answer.conclusion)
    if grade is None or not grade.is_integer() or not 0 <= grade <= highest:
        raise Malformed(answer.text, f'a grade from 0 to {highest} as {{"grade": N}}')
    return int(grade)


def _written_grade(text: str) -> float | None:
    for written in reversed(re.findall(r"\{[^{}]*\}", text)):
        try:
            grade = json.loads(written)["grade"]
            return None if isinstance(grade, bool) else float(grade)
        except (ValueError, LookupError, TypeError):
            continue
    lines: Sequence[str] = text.strip().splitlines()
    match = LABELLED.fullmatch(re.sub(r"[*_`#]", "", lines[-1]).strip()) if lines else None
    return float(match[1]) if match else None
