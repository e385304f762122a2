"""Queries in what a language model writes: without numbers, labels, quotes and explanations."""

import json
import re

LISTED = re.compile(r"^(?:[-*\u2022\u2013]|\(?\d{1,2}[.):])\s+")
"""The number or the mark of a line in a list."""

LABELLED = re.compile(
    r"^(?:search query|question|query|claim|keyword|title|task|answer|q)s?"
    r"\s*\d{0,2}\s*[:\u2013-]\s+",
    re.IGNORECASE,
)
QUOTES = {
    '"': '"',
    "'": "'",
    "`": "`",
    "\u201c": "\u201d",
    "\u2018": "\u2019",
    "\u201e": "\u201c",
    "\u00ab": "\u00bb",
}
"""Signs that a whole query may be put in, and those that close them."""


def queries_in(text: str, *, label: str, count: int) -> list[str]:
    """Return at most `count` distinct queries of an answer, one a line or as a list of JSON."""
    queries: dict[str, None] = {}
    for line in _lines(text):
        query = bare_query(line, label=label)
        if query and not query.endswith(":"):  # `Here are three questions:`
            queries.setdefault(query)
    return [*queries][:count]


def bare_query(line: str, *, label: str) -> str:
    """Return a line without what is not part of the query."""
    query, before = " ".join(line.split()), None
    while query != before:
        before = query
        query = LISTED.sub("", query.strip())
        query = LABELLED.sub("", query.removeprefix(label).strip())
        for sign in ("**", "__", "*"):
            if len(query) > 2 * len(sign) and query.startswith(sign) and query.endswith(sign):
                query = query[len(sign) : -len(sign)]
        query = re.sub(r"^\*\*[^*]{1,30}\*\*\s*(?=\S)", "", query) if query[:2] == "**" else query
        if len(query) > 1 and QUOTES.get(query[0]) == query[-1]:
            inner = query[1:-1]
            query = inner if query[0] not in inner and query[-1] not in inner else query
    return query


def _lines(text: str) -> list[str]:
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            return values
    return [line for line in text.splitlines() if not line.strip().startswith("```")]
