"""What the teachers behind an endpoint share: a template, its settings, its fingerprint."""

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
        """Return the question with the task's sentence in it, and with the texts left open."""
        raise NotImplementedError

    def top(self) -> int:
        """Return how many likely tokens a score is read from; 0: from the text alone."""
        return 0

    def shaping(self) -> tuple[str, ...]:
        """Return the names of the settings that shape a score beside the template."""
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
        """Return what is read from the answer to each (prompt, what it is about).

        Equal prompts are asked once. `undecided` stands for an answer that does not come, if the
        user allows that.
        """
        questions = list(questions)
        about: dict[str, str] = {}
        for prompt, what in questions:
            about.setdefault(prompt, what)
        prompts = list(about)
        found = self.client.map(
            lambda prompt: self.client.ask(prompt, read, about=about[prompt], undecided=undecided),
            prompts,
        )
        values = dict(zip(prompts, found, strict=True))
        return [values[prompt] for prompt, _ in questions]


def shuffled(query: Doc, docs: Sequence[Doc]) -> NDArray[np.int64]:
    """Return the documents' places in an order that only the texts decide.

    It is as good as random, and the same in every run: the first stage's order is not in it.
    """
    order: NDArray[np.int64] = np.argsort(
        hash64([f"{query.full_text}\0{doc.full_text}" for doc in docs]), kind="stable"
    )
    return order


def without_labels(text: str) -> str:
    """Return a text whose own `[3]` cannot be taken for the label of a passage."""
    return re.sub(r"\[(\d+)\]", r"(\1)", text)
