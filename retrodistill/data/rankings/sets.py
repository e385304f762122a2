"""Set operations over queries: `A AND B`, `A OR B`, `A NOT B`, over the lists of their parts."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken, v_args

from retrodistill.base.errors import ConfigError

Scores: TypeAlias = Mapping[str, float]
"""Document id -> score."""

DEPTH = 1000
"""Documents of each part that are asked for: what stands in both lists may stand low in either."""

GRAMMAR = r"""
?start: either
?either: both (_OR both)*
?both: unit
     | both _AND unit        -> intersection
     | both _AND? _NOT unit  -> difference
?unit: (WORD | PHRASE)+      -> text
     | "(" either ")"
_AND.2: /AND(?![^\s()"])/
_OR.2: /OR(?![^\s()"])/
_NOT.2: /NOT(?![^\s()"])/
PHRASE: /"[^"]+"/
WORD: /[^\s()"]+/
%ignore /\s+/
"""
MAX_CHARACTERS = 10_000
MAX_BRACKETS = 20
MAX_OPERATORS = 200
KEYWORD = re.compile(r'"[^"]*"|(?<![^\s()"])(AND|OR|NOT)(?![^\s()"])')


@dataclass(frozen=True, slots=True)
class PlainQuery:
    """A query of its own."""

    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """Two queries, and what is made of their documents."""

    name: Literal["and", "or", "not"]
    left: "Query"
    right: "Query"


Query: TypeAlias = PlainQuery | Operation


def parse_sets(text: str) -> Query:
    """Return the query that a text describes.

    Parts are joined by `AND`, `OR` and `NOT` (or `AND NOT`), in capitals, and by brackets. AND and
    NOT bind alike, from left to right, and tighter than OR. A quoted operator is text, and the
    quotes around it are dropped. A text that has no operator outside of quotes is one query, as it
    stands.

    Raises:
        ConfigError: operators, brackets or quotes do not fit; the place is named.

    """
    operators = sum(match[1] is not None for match in KEYWORD.finditer(text))
    if not operators:
        whole = re.fullmatch(r'\s*"([^"]+)"\s*', text)
        return PlainQuery(whole[1] if whole else text)
    sizes = len(text), text.count("("), operators
    limits = MAX_CHARACTERS, MAX_BRACKETS, MAX_OPERATORS
    if any(size > limit for size, limit in zip(sizes, limits, strict=True)):
        raise ConfigError(
            "a query with operators may have {:,} characters, {} brackets and {} operators, but "
            "this one has {:,}, {:,} and {:,}. Ask several shorter ones.".format(*limits, *sizes)
        )
    try:
        query: Query = _parser().parse(text)  # type: ignore[assignment]
    except UnexpectedInput as error:
        ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        rest_of_text = "" if ended else text[error.pos_in_stream :].strip()
        raise ConfigError(
            f"query {text!r} is not understood at {rest_of_text[:40] or 'its end'!r}. Write texts "
            "joined by AND, OR or NOT, with brackets around what belongs together, as in "
            '`"effects of vitamin D" AND (asthma OR eczema) NOT children`; quote a text that '
            "holds such a word or a bracket itself."
        ) from None
    if "" in texts_of(query):
        raise ConfigError(f"query {text!r} holds an empty text: put words between its quotes.")
    return query


@v_args(inline=True)
class _Builder(Transformer[Token, Query]):
    """Makes each part when the parser has read it."""

    def text(self, *words: Token) -> Query:
        return PlainQuery(" ".join(word.strip('"') for word in words).strip())

    def either(self, *parts: Query) -> Query:
        left, *others = parts
        for right in others:
            left = Operation("or", left, right)
        return left

    def intersection(self, left: Query, right: Query) -> Query:
        return Operation("and", left, right)

    def difference(self, left: Query, right: Query) -> Query:
        return Operation("not", left, right)


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="basic", transformer=_Builder())


def texts_of(query: Query) -> list[str]:
    """Return the texts that a query is made of, each once, in their order."""
    if isinstance(query, PlainQuery):
        return [query.text]
    return list(dict.fromkeys([*texts_of(query.left), *texts_of(query.right)]))


def min_max(scores: Scores) -> dict[str, float]:
    """Return scores from 0, a list's lowest, to 1, its highest; equal ones are all 1."""
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    if low == high:
        return dict.fromkeys(scores, 1.0)
    return {doc: (score - low) / (high - low) for doc, score in scores.items()}


def intersect(a: Scores, b: Scores, how: Literal["product", "minimum"] = "product") -> Scores:
    """Return the documents of both lists, with the product (or the lower one) of their scores."""
    join: Callable[[float, float], float] = min if how == "minimum" else float.__mul__
    return {doc: join(float(a[doc]), float(b[doc])) for doc in a if doc in b}


def unite(a: Scores, b: Scores) -> Scores:
    """Return the documents of either list, with the higher of their scores."""
    return {doc: max(a.get(doc, -np.inf), b.get(doc, -np.inf)) for doc in {**a, **b}}


def subtract(a: Scores, b: Scores, k: int) -> Scores:
    """Return the documents of `a` that are not among the `k` best of `b`: a * (1 - b).

    What `b` lacks keeps its score.
    """
    excluded = {doc for doc, _ in ranked(b)[:k]}
    return {doc: s * (1 - b.get(doc, 0.0)) for doc, s in a.items() if doc not in excluded}


def ranked(scores: Scores) -> list[tuple[str, float]]:
    """Return documents and scores, best first, by the tie rule of runs."""
    return sorted(
        ((doc, float(np.float32(score))) for doc, score in scores.items()),
        key=lambda item: (item[1], item[0].encode()),
        reverse=True,
    )


def evaluate_sets(
    text: str,
    find: Callable[[list[str], int], Sequence[Scores]],
    k: int,
    *,
    depth: int = DEPTH,
) -> list[tuple[str, float]]:
    """Return the `k` best documents of a query with operators, and their scores.

    `find(texts, depth)` gives the scored documents of each text. A text without operators (see
    `parse_sets`) is found as it stands, with its own scores. Else each part's list of `depth`
    documents is brought to 0 (its lowest score) to 1 (its highest), and:

    - `A AND B` has the documents of both lists, with the product of the scores,
    - `A OR B` those of either, with the higher score,
    - `A NOT B` those of A that are not among B's `k` best, with a * (1 - b).

    So scores of the result lie from 0 to 1, and depend on `depth`.

    Source: Malaviya et al. 2023, arXiv:2305.11694 (QUEST), for queries of this kind; the operations
    are those of fuzzy and probabilistic Boolean retrieval.

    Raises:
        ConfigError: operators, brackets or quotes do not fit, or `k` is below 1.

    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, but it is {k}.")
    query = parse_sets(text)
    texts = texts_of(query)
    if isinstance(query, PlainQuery):
        return ranked(find(texts, k)[0])[:k]
    results = dict(zip(texts, map(min_max, find(texts, max(k, depth))), strict=True))
    return ranked(_evaluated(query, results, k))[:k]


def _evaluated(query: Query, found: Mapping[str, Scores], k: int) -> Scores:
    if isinstance(query, PlainQuery):
        return found[query.text]
    left, right = (_evaluated(operand, found, k) for operand in (query.left, query.right))
    if query.name == "not":
        return subtract(left, right, k)
    return intersect(left, right) if query.name == "and" else unite(left, right)
