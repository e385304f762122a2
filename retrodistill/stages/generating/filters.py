"""Filters of generated queries; each says of which drafts it drops, and why."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from retrodistill.base.progress import bar
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.data.store.words import words_of
from retrodistill.models.writers import Draft

if TYPE_CHECKING:
    from retrodistill.base.config import GenerateSettings
    from retrodistill.base.types import Retriever
    from retrodistill.data.datasets import Texts
    from retrodistill.stages.generating.queries import GeneratedQuery

TEXTS = "passage|text|document|article|paragraph|excerpt|abstract|section|page|author|study|paper"
POINTING = re.compile(
    rf"\b(?:this\s+(?!year|month|week|day|century|decade|is\b)\w+|"
    rf"(?:these|given|provided|following)\s+(?:{TEXTS})s?|"
    rf"(?:the|these|those)\s+(?:above|following|given|provided|preceding|previous)\b|"
    rf"the\s+(?:{TEXTS})s?\s+(?:above|below|says?|mentions?|describes?|discusses?|provided)|"
    rf"(?:according to|based on|in|from|of|by)\s+the\s+(?:passage|text|document|article|paragraph|"
    rf"excerpt|author|context)|(?:mentioned|described|shown|listed|stated|as)\s+(?:above|below))\b",
    re.IGNORECASE,
)
"""Words that point at what the reader of the query does not see: a text, or `this condition`."""

Check = Callable[[Draft], str]
"""Returns why a draft is dropped; empty if it passes."""


def checks(settings: "GenerateSettings") -> Sequence[Check]:
    """Return the filters that look at one draft alone, in their order."""

    def length(draft: Draft) -> str:
        count = len(words_of(draft.text))
        if count < settings.min_words:
            return "fewer words than --min-words"
        return "more words than --max-words" if count > settings.most_words else ""

    # A passage may point at what it has said itself.
    pointing = () if settings.write == "passages" else (self_contained,)
    return (lambda draft: draft.problem, length, *pointing)


def self_contained(draft: Draft) -> str:
    """Return a problem where a query points at its document, as `this passage` does."""
    return "not self-contained" if POINTING.search(draft.text) else ""


def graded(
    queries: Sequence["GeneratedQuery"], docs: "Texts", teacher: Teacher, min_score: float
) -> list[bool]:
    """Return of each query whether a teacher scores it high enough with its first document."""
    sources = docs.rows([query.relevant[0] for query in queries]).tolist()
    asked = [Doc(query.id, "", query.text) for query in queries]
    scores = teacher.score(Pairs.of(asked, [docs[row] for row in sources]))
    return [bool(score >= min_score) for score in scores]


def round_trip(
    queries: Sequence["GeneratedQuery"], docs: "Texts", retriever: "Retriever", k: int
) -> Iterator[bool]:
    """Yield of each query whether one of its documents is among the best `k` of a retriever."""
    with bar("round trip", len(queries)) as advance:
        hits = retriever.top([query.text for query in queries], k)
        for query, (rows, _) in zip(queries, hits, strict=True):
            advance(1)
            yield not {*query.relevant}.isdisjoint(docs.ids(rows[:k]))
