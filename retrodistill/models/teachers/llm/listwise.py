"""Listwise language-model teachers: the model ranks the passages of a query."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Doc, Pairs, Unit
from retrodistill.models.teachers.llm.answers import Answer, Malformed
from retrodistill.models.teachers.llm.base import EndpointTeacher, shuffled, without_labels

TASK = "Rank the passages by how well they answer the query."

QUESTION = """{task}

Query: {query}

{passages}

Query: {query}

Put all {count} passages in order, the one that answers the query best first. Name each label once,
in the form [2] > [1], and write nothing else."""


@dataclass(eq=False, repr=False, kw_only=True)
class LLMListwiseTeacher(EndpointTeacher):
    """Ranks from a window that slides over the candidates, from the last to the first.

    The window moves over the candidates in the first stage's order: its
    overlap carries a good candidate upwards. Within a window the model sees them in an
    order that only the texts decide, so that it cannot follow the first stage; `shuffle=false`
    shows them in their present order, as RankGPT does.

    Source: Sun et al. 2023, arXiv:2304.09542, for the permutation and the sliding window.
    """

    scale = "rank"
    unit: Unit = field(default="list", init=False)

    answer_tokens: int = 400
    """Longest answer, in tokens."""

    window: int = 20
    """Candidates in one question."""

    stride: int = 10
    """How far the window moves up each time."""

    shuffle: bool = True
    """Hide the first stage's order from the model."""

    def __post_init__(self) -> None:
        if not 1 <= self.stride < self.window:
            raise ConfigError(
                f"option stride must be at least 1 and below window, or no candidate could climb "
                f"from one window to the next, but they are {self.stride} and {self.window}."
            )
        super().__post_init__()

    def template(self) -> str:
        """Return the question without its texts."""
        return self._question("{query}", ["{passage}"])

    def shaping(self) -> tuple[str, ...]:
        """Return the names of the settings that influence a score."""
        return (*super().shaping(), "window", "stride", "shuffle")

    def _question(self, query: str, passages: Sequence[str]) -> str:
        listed = "\n\n".join(f"[{label}] {text}" for label, text in enumerate(passages, 1))
        task, count = self.instruction or TASK, len(passages)
        return QUESTION.format(task=task, query=query, passages=listed, count=count)

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return minus the rank of each candidate among those of its query: -1 is the best.

        Raises:
            ConfigError: the endpoint refuses the question, or costs too much.
            DataError: no usable answer comes, however often the model is asked.

        """
        lists = [(query, positions) for query, positions in pairs.by_query() if len(positions)]

        def ranked(candidates: tuple[Doc, NDArray[np.int64]]) -> NDArray[np.int64]:
            query, positions = candidates
            docs = [pairs.docs[row] for row in pairs.doc_rows[positions]]
            return positions[self._order(query, docs)]

        scores = np.empty(len(pairs), np.float32)
        for order in self.client.map(ranked, lists):
            scores[order] = -np.arange(1.0, len(order) + 1.0)
        return scores

    def _order(self, query: Doc, docs: Sequence[Doc]) -> list[int]:
        """Return the documents' positions, best first."""
        order = list(range(len(docs)))
        for start, end in windows(len(docs), self.window, self.stride):
            order[start:end] = self._permuted(query, docs, order[start:end])
        return order

    def _permuted(self, query: Doc, docs: Sequence[Doc], positions: list[int]) -> list[int]:
        """Return the positions in the order that the model gives them."""
        shown = positions
        if self.shuffle:
            shown = [positions[i] for i in shuffled(query, [docs[row] for row in positions])]
        passages = [without_labels(self.cut(docs[row])) for row in shown]
        prompt = self._question(self.cut(query), passages)
        about = f"query {query.id!r} and {len(shown)} documents from {docs[shown[0]].id!r} on"
        read = partial(read_permutation, count=len(shown))
        order: list[int] = self.client.ask(prompt, read, about=about, undecided=[])
        named = [shown[rank] for rank in order]
        return named + [row for row in positions if row not in named]


def windows(candidates: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each window, the last candidates first, until the first are met."""
    end = candidates
    while candidates > 1:
        start = max(0, end - window)
        yield start, end
        if start == 0:
            return
        end -= stride


def read_permutation(answer: Answer, count: int) -> list[int]:
    """Return the positions, counted from 0, that an answer names, in its order and each once.

    It is the longest chain `[2] > [1]`, the last of several, whatever surrounds it; without
    one, all labels in brackets. Positions that are not named are left to the caller.

    Raises:
        Malformed: no label from 1 to `count` is named.

    """
    text = answer.conclusion
    chains = re.findall(r"\[?\d{1,9}\]?(?:\s*>\s*\[?\d{1,9}\]?)+", text)
    best = max(reversed(chains), key=lambda chain: chain.count(">"), default=None)
    labels = re.findall(r"\[(\d{1,9})\]", text) if best is None else re.findall(r"\d+", best)
    named = dict.fromkeys(int(label) - 1 for label in labels if 1 <= int(label) <= count)
    if not named:
        raise Malformed(answer.text, f"an order of [1] to [{count}]")
    return list(named)
