"""Base of the teachers behind an endpoint: template, settings, fingerprint."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest, hash64
from retrodistill.base.types import Doc
from retrodistill.models.teachers.llm.answers import Answer
from retrodistill.models.teachers.llm.client import Client
from retrodistill.models.teachers.llm.settings import Settings

Result = TypeVar("Result")


@dataclass(eq=False, repr=False)
class EndpointTeacher(Settings):
    """A model behind an endpoint, and the question that it is asked.

    Raises:
        ConfigError: no model is named, a setting is out of range, or there is no endpoint.
        MissingExtra: the package openai is not installed.

    """

    model: str
    """The model's name at the endpoint."""

    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ConfigError("a teacher behind an endpoint needs a model's name: llm:NAME.")
        self.client = Client(self.model, self, top=self.top())
        self.fingerprint = digest(
            "llm" if not self.top() else "llm, log-odds behind thoughts",
            self.model,
            self.template(),
            *(f"{name}={getattr(self, name)}" for name in self.shaping()),
            *(["undecided"] if self.undecided else []),
        )

    def template(self) -> str:
        """Return the question with the task's sentence in it, and slots for the texts."""
        raise NotImplementedError

    def top(self) -> int:
        """Return the number of likely tokens that a score is read from; 0: from the text alone."""
        return 0

    def shaping(self) -> tuple[str, ...]:
        """Return the names of the settings, beside the template, that influence a score."""
        return ("words", "temperature", "answer_tokens")

    def cut(self, doc: Doc) -> str:
        """Return the first words of a text, without the surrogates that UTF-8 cannot carry."""
        words = doc.full_text.split()[: self.words]
        return " ".join(words).encode("utf-8", "replace").decode()

    def answers(
        self,
        questions: Iterable[tuple[str, str]],
        read: Callable[[Answer], Result],
        undecided: Result,
    ) -> list[Result]:
        """Return the result read from the answer to each (prompt, subject).

        Equal prompts are asked once. `undecided` stands for a missing answer, if the user allows
        that.
        """
        return self.each(
            list(questions),
            lambda prompt, subject: self.client.ask(
                prompt, read, about=subject, undecided=undecided
            ),
        )

    def each(
        self, questions: Sequence[tuple[str, str]], ask: Callable[[str, str], Result]
    ) -> list[Result]:
        """Return what `ask` returns for each (prompt, subject); equal prompts are asked once."""
        about: dict[str, str] = {}
        for prompt, subject in questions:
            about.setdefault(prompt, subject)
        prompts = list(about)
        results = self.client.map(lambda prompt: ask(prompt, about[prompt]), prompts)
        values = dict(zip(prompts, results, strict=True))
        return [values[prompt] for prompt, _ in questions]


def shuffled(query: Doc, docs: Sequence[Doc]) -> NDArray[np.int64]:
    """Return the documents' positions in an order that depends only on the texts.

    It is pseudo-random and the same in every run, and independent of the first stage's order.
    """
    order: NDArray[np.int64] = np.argsort(
        hash64([f"{query.full_text}\0{doc.full_text}" for doc in docs]), kind="stable"
    )
    return order


def without_labels(text: str) -> str:
    """Return a text whose `[3]` cannot be mistaken for the label of a passage."""
    return re.sub(r"\[(\d+)\]", r"(\1)", text)
