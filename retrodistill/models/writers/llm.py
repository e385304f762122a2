"""Language models behind an OpenAI-compatible endpoint, as writers of queries."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Doc
from retrodistill.models.teachers.llm.answers import Answer, Malformed
from retrodistill.models.teachers.llm.client import BYTES_PER_TOKEN, Client
from retrodistill.models.teachers.llm.settings import Settings
from retrodistill.models.writers.answers import queries_in
from retrodistill.models.writers.base import Draft, WriterOptions
from retrodistill.models.writers.prompts import Prompt

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts


@dataclass(eq=False, repr=False)
class LLMWriter(Settings):
    """Asks a model for queries of each kind, `per_doc` in one question.

    An answer is one query a line; numbers, labels, quotes and explanations are removed. With
    `undecided`, a document about which the endpoint refuses to answer has no query.

    Raises:
        ConfigError: no model is named, a setting is out of range, or there is no endpoint.
        MissingExtra: the package openai is not installed.

    """

    model: str
    """The model's name at the endpoint."""

    docs: "Texts"
    options: WriterOptions

    answer_tokens: int = field(default=256, kw_only=True)
    """Longest answer, in tokens; a model that reasons first needs thousands."""

    instruction: str = field(default="", kw_only=True)
    """Sentence to put before the prompt, such as who will search."""

    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ConfigError("a writer behind an endpoint needs a model's name: llm:NAME.")
        self._prompts = self.options.asked()
        self._count = self.options.per_doc or 1
        self._client = Client(self.model, self, top=0)
        shaping = (self.instruction, self.words, self.temperature, self.answer_tokens, self._count)
        prompts = [prompt.fingerprint for prompt in self._prompts]
        self.fingerprint = digest("llm writer", self.model, *map(str, shaping), *prompts)

    def estimate(self, docs: Sequence[Doc]) -> str:
        """Return the tokens of questions and answers, and their price."""
        size = sum(len(question.encode()) for _, _, question in self._questions(docs))
        read = size // BYTES_PER_TOKEN
        written = len(docs) * len(self._prompts) * self.answer_tokens
        cost = (read * self.price_in + written * self.price_out) / 1e6
        price = f", at most about {cost:.2g} to pay" if cost else ""
        return f"about {read:,} tokens to read and at most {written:,} to write{price}"

    def write(self, docs: Sequence[Doc]) -> list[Draft]:
        """Return the queries for these documents.

        Raises:
            ConfigError: the endpoint refuses, or the next question could exceed `max_cost`.
            DataError: no usable answer comes, however often the model is asked.

        """
        questions = [*self._questions(docs)]
        distinct = {question: (doc, prompt) for doc, prompt, question in reversed(questions)}

        def ask(question: str) -> tuple[str, ...]:
            doc, prompt = distinct[question]
            read = partial(_read, prompt=prompt, count=self._count)
            about = f"document {doc.id!r}"
            return self._client.ask(question, read, about=about, undecided=())

        answers = dict(zip(distinct, self._client.map(ask, [*distinct]), strict=True))
        return [
            Draft(
                query,
                prompt.kind,
                doc.id,
                problem="copied from the prompt" if prompt.is_copied(query, doc.full_text) else "",
            )
            for doc, prompt, question in questions
            for query in answers[question]
        ]

    def _questions(self, docs: Sequence[Doc]) -> list[tuple[Doc, Prompt, str]]:
        """Return each document with each prompt, and the question about it."""
        return [
            (doc, prompt, self._question(doc, prompt)) for doc in docs for prompt in self._prompts
        ]

    def _question(self, doc: Doc, prompt: Prompt) -> str:
        words = " ".join(doc.full_text.split()[: self.words])
        text = words.encode("utf-8", "replace").decode()
        question = prompt.question(text, self._count)
        return f"{self.instruction}\n\n{question}" if self.instruction else question


def _read(answer: Answer, *, prompt: Prompt, count: int) -> tuple[str, ...]:
    """Return the queries of an answer.

    Raises:
        Malformed: there is none.

    """
    queries = queries_in(answer.conclusion, label=prompt.label, count=count)
    if not queries:
        raise Malformed(answer.text, f"a {prompt.kind}")
    return tuple(queries)
